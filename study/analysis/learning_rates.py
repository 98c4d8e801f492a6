"""Where in its searched range each arm's learning rates did well, and where its winners lie."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from study.analysis.cells.base import score_of
from study.analysis.cells.rate_range import NAME, RateRange, rate_range
from study.analysis.summary import StudySummary
from study.protocol.records import Stage, TrialRecord, TrialState
from study.protocol.results import StudyResults


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
    found = []
    for arm in results.config.arms.names:
        bounds = rate_range(results.config, arm)
        trials = tuple(_trials([t for t in results.trials if t.spec.arm == arm], summary.winners))
        if bounds is not None and trials:
            found.append(_placed(arm, bounds, trials))
    return tuple(found)


def _trials(trials: list[TrialRecord], won: frozenset[str]) -> list[LearningRateTrial]:
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
