"""What a step of a strategy costs, in forward passes and in seconds, and how many steps of LIFT
cost what a full run costs.

A step's price in forward units, for equal blocks: the forward pass (1, less the share of blocks
whose output is read from the prefix cache), the backward pass to activations (1, less the share
of blocks below the lowest one that trains) and to weights (the share of blocks that train). Full
takes 3. Embeddings, final norm and head are not counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

from study.protocol.records import StepCosts
from study.strategies.base import BlockLayout, Strategy, frozen_prefix, lowest_active_block
from study.strategies.lift import LiftStrategy

FULL_UNITS = 3.0


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
    """Prices in seconds; before a probe, in forward units.

    Attributes:
        full_step: one full step.
        unit: one forward unit of a LIFT step.
        saved: what a LIFT step would save if every block's output were read from the cache;
            0 where nothing is cached.
        full_evaluation, lift_evaluation: one pass over the validation split.
        phase_switch: one change of phase.
        fill: what it costs to compute and keep every block's output for a step's batch; None:
            unknown, a step that fills costs what one without a cache does.
        evaluation_fill: the same for the validation split.
    """

    full_step: float
    unit: float
    saved: float
    full_evaluation: float = 0.0
    lift_evaluation: float = 0.0
    phase_switch: float = 0.0
    fill: float | None = None
    evaluation_fill: float = 0.0

    @property
    def without_cache(self) -> Tariff:
        """The same where nothing is kept. All blocks are run at an evaluation then, as in full."""
        evaluation = self.full_evaluation or self.lift_evaluation
        return replace(self, saved=0.0, fill=None, evaluation_fill=0.0, lift_evaluation=evaluation)

    def hit(self, price: PhasePrice) -> float:
        """Seconds of a step that reads its prefix: it never saves more than its forward pass."""
        return max(
            price.recomputed * self.unit - price.prefix * self.saved,
            (price.recomputed - 1) * self.unit,
        )

    def miss(self, price: PhasePrice) -> float:
        """Seconds of a step whose prefix is not there yet: never less than without a cache."""
        recomputed = price.recomputed * self.unit
        if self.fill is None:
            return recomputed
        return max(recomputed, self.hit(price) + price.prefix * self.fill)


def predicted_tariff(prefix_cache: bool) -> Tariff:
    """The cost model's own, for when nothing has been measured."""
    return Tariff(FULL_UNITS, unit=1.0, saved=1.0 if prefix_cache else 0.0)


def measured_tariff(probe: StepCosts, probed: Sequence[PhasePrice]) -> Tariff:
    """The probe's seconds as prices of what it timed, the phases `probed`."""
    unit = probe.lift_step / statistics.fmean(price.recomputed for price in probed)
    prefix = statistics.fmean(price.prefix for price in probed)
    saved = 0.0
    if probe.lift_step_cached is not None:
        # A structure without a frozen prefix tells nothing about one with it.
        saved = (probe.lift_step - probe.lift_step_cached) / prefix if prefix else unit
    return Tariff(
        full_step=probe.full_step,
        unit=unit,
        saved=max(0.0, saved),
        full_evaluation=probe.full_evaluation,
        lift_evaluation=probe.lift_evaluation,
        phase_switch=probe.lift_phase_switch,
        fill=probe.lift_fill,
        evaluation_fill=probe.lift_evaluation_fill or 0.0,
    )


@dataclass(frozen=True)
class RunShape:
    """What both arms' trials at one dataset size have in common.

    Attributes:
        full_steps: optimizer steps of the full trial.
        first_pass: steps in which training examples are seen for the first time; 0: another trial
            has left them in the prefix cache, and the validation split too.
        evaluations: validation passes per trial, unless it has fewer steps.
    """

    full_steps: int
    first_pass: int
    evaluations: int


def full_seconds(tariff: Tariff, run: RunShape) -> float:
    """What one full run costs."""
    evaluations = min(run.full_steps, run.evaluations)
    steps = run.full_steps * tariff.full_step
    return steps + evaluations * tariff.full_evaluation + tariff.phase_switch


def cold_seconds(prices: Sequence[PhasePrice], tariff: Tariff, run: RunShape) -> float:
    """What one LIFT run costs that finds an empty prefix cache and fills it in its first pass."""
    total, done = 0.0, 0
    for price in prices:
        misses = min(price.steps, max(0, run.first_pass - done))
        total += misses * tariff.miss(price) + (price.steps - misses) * tariff.hit(price)
        done += price.steps
    evaluations = min(done, run.evaluations)
    if run.first_pass:
        total += _first_evaluated(prices, evaluations).prefix * tariff.evaluation_fill
    return total + evaluations * tariff.lift_evaluation + len(prices) * tariff.phase_switch


def cache_pays(
    runs: Sequence[tuple[Sequence[PhasePrice], RunShape]], tariff: Tariff, trials: int
) -> bool:
    """Whether so many LIFT runs of each kind cost less with a prefix cache, which the first of
    them fills, than without: a fast GPU may compute sooner than a disk reads."""
    kept = computed = 0.0
    for prices, run in runs:
        warm = replace(run, first_pass=0)
        kept += cold_seconds(prices, tariff, run) + (trials - 1) * cold_seconds(
            prices, tariff, warm
        )
        computed += trials * cold_seconds(prices, tariff.without_cache, warm)
    return kept < computed


def _first_evaluated(prices: Sequence[PhasePrice], evaluations: int) -> PhasePrice:
    """The phase in which the first of evenly spaced evaluations falls: the one that fills."""
    first = round(sum(price.steps for price in prices) / evaluations)
    ends = accumulate(price.steps for price in prices)
    return next(price for price, end in zip(prices, ends, strict=True) if first <= end)


@lru_cache(maxsize=4096)
def equal_cost_steps(
    strategy: LiftStrategy, blocks: int, tied: bool, seed: int, tariff: Tariff, run: RunShape
) -> int:
    """LIFT steps whose cold run costs most nearly what the full run costs, one per phase at least.

    Args:
        blocks, tied: of the model, see `abstract_layout`.
        seed: the trial's.
    """
    layout, budget = abstract_layout(blocks, tied), full_seconds(tariff, run)

    def excess(steps: int) -> float:
        return cold_seconds(price_phases(strategy, layout, steps, seed), tariff, run) - budget

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
