"""Where in its searched range each arm's learning rates did well, and where its winners lie."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.base import StudySummary, score_of
from study.config import StudyConfig
from study.domains import OUTER_SHARE, FloatDomain
from study.records import Stage, TrialRecord, TrialState
from study.results import StudyResults

NAME = "learning_rate"


@dataclass(frozen=True)
class RateRange:
    """An arm's searched learning rates.

    Attributes:
        low, high: ends of the range.
        low_end, high_end: inner ends of its outer tenths on the log scale.
    """

    low: float
    high: float
    low_end: float
    high_end: float

    def at_ends(self, rates: Sequence[float]) -> tuple[int, int]:
        """How many lie in the lowest and in the highest tenth."""
        return sum(r <= self.low_end for r in rates), sum(r >= self.high_end for r in rates)


def rate_range(config: StudyConfig, arm: str) -> RateRange | None:
    """None where an arm does not search more than one learning rate."""
    domain = config.space().for_arm(arm).get(NAME)
    if not isinstance(domain, FloatDomain) or not 0 < domain.low < domain.high:
        return None
    width = math.exp(OUTER_SHARE * math.log(domain.high / domain.low))
    return RateRange(domain.low, domain.high, domain.low * width, domain.high / width)


@dataclass(frozen=True)
class LearningRateTrial:
    """One complete search trial.

    Attributes:
        learning_rate: the one it was given.
        excess: nats of validation loss above the best complete trial of its replicate, 0 or more.
        winner: whether its replicate's search has ended and it won.
    """

    size: int
    replicate: int
    learning_rate: float
    excess: float
    winner: bool


@dataclass(frozen=True)
class LearningRates:
    """One arm's search over learning rates, all sizes and replicates together.

    Attributes:
        trials: complete search trials with a learning rate.
        winners, winners_low, winners_high: winners, and those in the lower and the upper tenth.
    """

    arm: str
    bounds: RateRange
    trials: tuple[LearningRateTrial, ...]
    winners: int
    winners_low: int
    winners_high: int


def learning_rates(results: StudyResults, summary: StudySummary) -> tuple[LearningRates, ...]:
    """One per arm that searches a range of learning rates and has a complete trial."""
    won = {
        replicate.winner.spec.trial_id
        for cell in summary.cells
        for replicate in cell.replicates
        if replicate.winner is not None
    }
    found = []
    for arm in results.config.arms.names:
        bounds = rate_range(results.config, arm)
        trials = tuple(_trials([t for t in results.trials if t.spec.arm == arm], won))
        if bounds is not None and trials:
            found.append(_placed(arm, bounds, trials))
    return tuple(found)


def _trials(trials: list[TrialRecord], won: set[str]) -> list[LearningRateTrial]:
    replicates: dict[tuple[int, int], list[tuple[TrialRecord, float]]] = defaultdict(list)
    for trial in trials:
        spec, score = trial.spec, score_of(trial)
        complete = spec.stage is Stage.SEARCH and trial.state is TrialState.COMPLETE
        if complete and score is not None and NAME in spec.hyperparameters:
            replicates[spec.size, spec.replicate].append((trial, score))
    return [
        LearningRateTrial(
            size=size,
            replicate=replicate,
            learning_rate=float(trial.spec.hyperparameters[NAME]),
            excess=score - min(other for _, other in group),
            winner=trial.spec.trial_id in won,
        )
        for (size, replicate), group in replicates.items()
        for trial, score in group
    ]


def _placed(arm: str, bounds: RateRange, trials: tuple[LearningRateTrial, ...]) -> LearningRates:
    winners = [trial.learning_rate for trial in trials if trial.winner]
    at_low, at_high = bounds.at_ends(winners)
    return LearningRates(
        arm=arm,
        bounds=bounds,
        trials=trials,
        winners=len(winners),
        winners_low=at_low,
        winners_high=at_high,
    )
