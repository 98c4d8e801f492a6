"""What a step of a strategy costs, in forward passes and in seconds, and how many steps of one
cost what a run of another costs.

A step's price in forward units, for equal blocks: the forward pass (1, less the share of blocks
whose output is read from the prefix cache), the backward pass to activations (1, less the share
of blocks below the lowest one that trains) and to weights (the share of blocks that train). Where
all of them train it is 3. Embeddings, final norm and head are not counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

from study.protocol.records import StepCosts
from study.strategies.base import BlockLayout, Strategy, frozen_prefix, lowest_active_block


@dataclass(frozen=True)
class PhasePrice:
    """One phase of a trial: its steps, and the forward units of each.

    Attributes:
        steps: optimizer steps.
        recomputed: units of a step that computes its frozen prefix.
        prefix: share of the blocks in that prefix; 0 once any of it has been trained.
    """

    steps: int
    recomputed: float
    prefix: float

    @property
    def cached(self) -> float:
        """Units of a step that reads its prefix from the cache."""
        return self.recomputed - self.prefix


@lru_cache
def abstract_layout(blocks: int, tied: bool = False) -> BlockLayout:
    """A model of `blocks` equal blocks whose other parts weigh nothing."""
    inside = tuple((f"block {index}",) for index in range(blocks))
    outside = ("embeddings", "norm") if tied else ("embeddings", "norm", "head")
    return BlockLayout(
        numel=dict.fromkeys(outside, 0) | {name: 1 for (name,) in inside},
        embeddings=("embeddings",),
        blocks=inside,
        top=outside[1:],
        tied=tied,
        head=("embeddings",) if tied else ("head",),
    )


def price_phases(
    strategy: Strategy, layout: BlockLayout, steps: int, seed: int = 0
) -> tuple[PhasePrice, ...]:
    """The price of every phase of a trial of `steps` steps whose seed is `seed`.

    Raises:
        UserError: fewer steps than phases, or options that do not fit the model.
    """
    phases = strategy.phases(layout, steps, seed=seed)
    blocks = len(layout.blocks)
    prices = []
    for phase, prefix in zip(phases, frozen_prefix(layout, phases), strict=True):
        active = set(phase.parameters)
        trained = sum(not active.isdisjoint(block) for block in layout.blocks)
        reached = blocks - lowest_active_block(layout, phase)
        units = 1 + (reached + trained) / blocks
        prices.append(PhasePrice(phase.steps, units, prefix / blocks))
    return tuple(prices)


@dataclass(frozen=True)
class Tariff:
    """An arm's prices in seconds; before a probe, in forward units.

    Attributes:
        unit: one forward unit of a step.
        saved: what a step would save if every block's output were read from the cache; 0 where
            nothing is cached.
        evaluation: one pass over the validation split.
        whole_evaluation: one in which all blocks are run.
        phase_switch: one change of phase.
        fill: what it costs to compute and keep every block's output for a step's batch; None:
            unknown, a step that fills costs what one without a cache does.
        evaluation_fill: the same for the validation split.
        probed: units of the steps that were timed, and their seconds.
    """

    unit: float
    saved: float
    evaluation: float = 0.0
    whole_evaluation: float = 0.0
    phase_switch: float = 0.0
    fill: float | None = None
    evaluation_fill: float = 0.0
    probed: tuple[float, float] | None = None

    @property
    def without_cache(self) -> Tariff:
        """The same where nothing is kept."""
        return replace(
            self, saved=0.0, fill=None, evaluation_fill=0.0, evaluation=self.whole_evaluation
        )

    def recomputed(self, price: PhasePrice) -> float:
        """Seconds of a step that computes its prefix."""
        if self.probed is not None and price.recomputed == self.probed[0]:
            return self.probed[1]  # as it was measured, to the last digit
        return price.recomputed * self.unit

    def hit(self, price: PhasePrice) -> float:
        """Seconds of a step that reads its prefix: it never saves more than its forward pass."""
        return max(
            self.recomputed(price) - price.prefix * self.saved,
            (price.recomputed - 1) * self.unit,
        )

    def miss(self, price: PhasePrice) -> float:
        """Seconds of a step whose prefix is not there yet: never less than without a cache."""
        recomputed = self.recomputed(price)
        if self.fill is None:
            return recomputed
        return max(recomputed, self.hit(price) + price.prefix * self.fill)


def predicted_tariff(prefix_cache: bool) -> Tariff:
    """The cost model's own, for when nothing has been measured."""
    return Tariff(unit=1.0, saved=1.0 if prefix_cache else 0.0)


def measured_tariff(probe: StepCosts, arm: str, probed: Sequence[PhasePrice]) -> Tariff:
    """The probe's seconds of an arm as prices of what it timed, the phases `probed`."""
    costs = probe.arms[arm]
    units = statistics.fmean(price.recomputed for price in probed)
    prefix = statistics.fmean(price.prefix for price in probed)
    unit = costs.step / units
    saved = 0.0
    if costs.step_cached is not None:
        # A structure without a frozen prefix tells nothing about one with it.
        saved = (costs.step - costs.step_cached) / prefix if prefix else unit
    # All blocks are run where nothing is kept.
    whole = (c.evaluation for c in probe.arms.values() if c.step_cached is None and c.evaluation)
    return Tariff(
        unit=unit,
        saved=max(0.0, saved),
        evaluation=costs.evaluation,
        whole_evaluation=next(whole, costs.evaluation),
        phase_switch=costs.phase_switch,
        fill=costs.fill,
        evaluation_fill=costs.evaluation_fill or 0.0,
        probed=(units, costs.step),
    )


@dataclass(frozen=True)
class RunShape:
    """What all arms' trials at one dataset size have in common.

    Attributes:
        first_pass: steps in which training examples are seen for the first time; 0: another trial
            has left them in the prefix cache, and the validation split too.
        evaluations: validation passes per trial, unless it has fewer steps.
    """

    first_pass: int
    evaluations: int


def run_seconds(prices: Sequence[PhasePrice], tariff: Tariff, run: RunShape) -> float:
    """What one run costs that finds an empty prefix cache and fills it in its first pass."""
    total, done = 0.0, 0
    for price in prices:
        misses = min(price.steps, max(0, run.first_pass - done)) if price.prefix else 0
        total += misses * tariff.miss(price) + (price.steps - misses) * tariff.hit(price)
        done += price.steps
    evaluations = min(done, run.evaluations)
    if run.first_pass:
        total += _first_evaluated(prices, evaluations).prefix * tariff.evaluation_fill
    return total + evaluations * tariff.evaluation + len(prices) * tariff.phase_switch


def cache_pays(
    runs: Sequence[tuple[Sequence[PhasePrice], RunShape]], tariff: Tariff, trials: int
) -> bool:
    """Whether so many runs of each kind cost less with a prefix cache, which the first of them
    fills, than without: a fast GPU may compute sooner than a disk reads."""
    kept = computed = 0.0
    for prices, run in runs:
        warm = replace(run, first_pass=0)
        kept += run_seconds(prices, tariff, run) + (trials - 1) * run_seconds(prices, tariff, warm)
        computed += trials * run_seconds(prices, tariff.without_cache, warm)
    return kept < computed


def _first_evaluated(prices: Sequence[PhasePrice], evaluations: int) -> PhasePrice:
    """The phase in which the first of evenly spaced evaluations falls: the one that fills."""
    first = round(sum(price.steps for price in prices) / evaluations)
    ends = accumulate(price.steps for price in prices)
    return next(price for price, end in zip(prices, ends, strict=True) if first <= end)


@lru_cache(maxsize=4096)
def equal_cost_steps(
    strategy: Strategy,
    blocks: int,
    tied: bool,
    seed: int,
    tariff: Tariff,
    budget: float,
    run: RunShape,
) -> int:
    """Steps whose cold run costs most nearly `budget`, one per phase at least.

    Args:
        blocks, tied: of the model, see `abstract_layout`.
        seed: the trial's.
    """
    layout = abstract_layout(blocks, tied)

    def excess(steps: int) -> float:
        return run_seconds(price_phases(strategy, layout, steps, seed), tariff, run) - budget

    low = strategy.phase_count(blocks)
    if excess(low) >= 0:
        return low
    high = 2 * low
    while excess(high) < 0:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low if -excess(low) <= excess(high) else high
