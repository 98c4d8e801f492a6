"""What a study can detect, from its file alone or with what its first replicates say of the noise.

A study finds an arm better when P(D > rho) is at least .95. By construction it does so in at most
one study in twenty when D is just rho, so what counts is how often it does when D is 2 rho.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from study.analysis.cells.base import Gate
from study.analysis.cells.best_of_k import BestOfK
from study.analysis.cells.tuning import planned_trials
from study.analysis.curve.design import leverage_at, precision_at, replicated
from study.analysis.curve.noise import Noise, SplitNoise
from study.analysis.rules import ENOUGH, LEANING, SPLIT_LIMIT, SURE
from study.analysis.verdict.gates import plan_gates
from study.analysis.verdict.growth import Growth, grown, mended
from study.config.load import StudyConfig
from study.protocol.steps import full_steps


@dataclass(frozen=True)
class PowerAt:
    """What a study can say at one dataset size. Chances are 0 where a gate of the plan fails.

    Attributes:
        size: training examples.
        half_width: expected, of the 95 % interval, nats; None without a curve.
        claim: chance of the verdict "better" for the better arm when |D| is 2 rho.
        claim_at_rho: the same when |D| is rho.
        lean_at_rho: chance of that verdict or a lean towards the better arm when |D| is rho.
        failed: the plan's gates that fail there.
    """

    size: int
    half_width: float | None
    claim: float
    claim_at_rho: float
    lean_at_rho: float
    failed: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class Power:
    """What a study can detect.

    Attributes:
        rho: the difference that matters, nats.
        noise, split: what was reckoned with.
        middle, largest: at the middle of the dataset sizes, by ratio, and at the largest.
        advice: the cheapest growth with which `middle.claim` would be `ENOUGH`; None where it is,
            or where nothing within reach would do. It takes the test split to be large enough.
        advised: `claim` in the middle with that growth.
        trials: planned of each search.
        search_trials: that it will need before any verdict, see `planned_trials`; as many as are
            planned where those will do.
    """

    rho: float
    noise: Noise
    split: SplitNoise
    middle: PowerAt
    largest: PowerAt
    advice: Growth | None = None
    advised: float | None = None
    trials: int = 0
    search_trials: int = 0

    @property
    def split_limit(self) -> float:
        """Above it, in nats, the test split is too small."""
        return SPLIT_LIMIT * self.rho

    @property
    def test_examples_needed(self) -> int | None:
        """Test examples that would do; None where there are enough."""
        if self.split.error <= self.split_limit:
            return None
        return self.split.enough(self.split_limit)


def predict_power(
    config: StudyConfig, noise: Noise, split: SplitNoise, tuning: Sequence[BestOfK] = ()
) -> Power:
    """Power of a study of two arms as it is planned.

    Args:
        noise: see `assumed_noise` and `noise_on_record`.
        split: see `split_error`.
        tuning: of the searches on record.
    """
    trials = planned_trials(config, tuning)
    centre = power_at(config, middle_size(config), noise, split)
    advice = cheapest_growth(config, noise, split, trials) if centre.claim < ENOUGH else None
    return Power(
        rho=config.decision.rho,
        noise=noise,
        split=split,
        middle=centre,
        largest=power_at(config, config.dataset_sizes[-1], noise, split),
        advice=advice[0] if advice else None,
        advised=advice[1] if advice else None,
        trials=config.search.trials,
        search_trials=trials,
    )


def power_at(config: StudyConfig, size: int, noise: Noise, split: SplitNoise) -> PowerAt:
    """See `PowerAt`."""
    failed = tuple(gate for gate in plan_gates(config, size) if gate.status == "fail")
    rho = config.decision.rho
    found = precision_at(replicated(config.dataset_sizes, config.search.replicates), size)
    if found is None or not config.confirm.seeds:
        return PowerAt(size, None, 0.0, 0.0, 0.0, failed)
    point = noise.of_point(config.search.trials, config.confirm.seeds)

    def chance(gap: float, level: float) -> float:
        return 0.0 if failed else found.chance(gap, level, point, split.variance)

    return PowerAt(
        size=size,
        half_width=found.half_width(point, split.variance),
        claim=chance(rho, SURE),
        claim_at_rho=chance(0.0, SURE),
        lean_at_rho=chance(rho, LEANING),
        failed=failed,
    )


def middle_size(config: StudyConfig) -> int:
    """The middle of the dataset sizes, by ratio."""
    return round(math.sqrt(config.dataset_sizes[0] * config.dataset_sizes[-1]))


def cheapest_growth(
    config: StudyConfig, noise: Noise, split: SplitNoise, trials: int = 0
) -> tuple[Growth, float] | None:
    """The cheapest growth that gives `ENOUGH` power at 2 rho in the middle of the sizes, and that
    power; None where nothing within reach does.

    Args:
        trials: that every search needs.
    """
    limit = SPLIT_LIMIT * config.decision.rho
    if split.error > limit:
        split = split.with_examples(split.enough(limit))
    middle, short = middle_size(config), max(0, trials - config.search.trials)
    more = (short, short + max(trials, config.search.trials))
    options = [
        Growth(config, grown(mended(config, middle, sizes), replicates=m, seeds=r, trials=t))
        for sizes, m, r, t in itertools.product(range(3), range(10), range(4), more)
    ]
    for growth in sorted(options, key=effort):
        if _with_known_noise(growth.after, noise, split) < ENOUGH:
            continue
        found = power_at(growth.after, middle_size(growth.after), noise, split)
        if found.claim >= ENOUGH:
            return growth, found.claim
    return None


def _with_known_noise(config: StudyConfig, noise: Noise, split: SplitNoise) -> float:
    """What `power_at` would find were the noise known: more than it can find, in less time."""
    points = replicated(config.dataset_sizes, config.search.replicates)
    leverage = leverage_at(points, middle_size(config))
    if leverage is None:
        return 0.0
    point = noise.of_point(config.search.trials, config.confirm.seeds)
    error = math.sqrt(leverage * point + split.variance.variance)
    return float(special.ndtr(config.decision.rho / error - special.ndtri(SURE)))


def effort(growth: Growth) -> float:
    """What a growth costs, in optimizer steps of full: in device seconds both arms cost alike."""
    runs = growth.runs()
    return float(sum(count * full_steps(growth.after, size) for size, count in runs.items()))
