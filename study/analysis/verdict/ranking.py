"""Which configurations did best, and whether their order is shown: what a plain sweep ends with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scipy import special

from study.analysis.cells.base import CellSummary, score_of
from study.analysis.cells.best_of_k import best_of_k
from study.analysis.cells.estimates import mean_metrics, pooled_sd, validation_metrics_of
from study.analysis.curve.noise import assumed_noise
from study.analysis.rules import LEVEL, pairs_of
from study.analysis.verdict.growth import Growth, mended, planned_runs
from study.config.arms import read_arms
from study.config.load import StudyConfig
from study.protocol.records import Stage, TrialRecord, TrialState
from study.protocol.results import StudyResults


@dataclass(frozen=True)
class Ranked:
    """One configuration.

    Attributes:
        trial: the search trial that tried it.
        loss: validation loss, nats: mean of its confirm runs, or its lowest in the search, which
            flatters the best of many.
        runs: confirm runs behind it; 0: the search trial's own loss.
        metrics: classification: validation metrics at the same evaluations, by name.
        behind: nats above the best one.
        told_apart: whether seeds alone are unlikely to put it so far behind.
    """

    trial: TrialRecord
    loss: float
    runs: int
    metrics: dict[str, float] = field(default_factory=dict)
    behind: float = 0.0
    told_apart: bool = False


@dataclass(frozen=True)
class Ranking:
    """An arm's configurations at one dataset size.

    Attributes:
        ranked: the lowest loss first: the replicates' winners where they have confirm runs, else
            every complete search trial.
        seed_sd: standard deviation of one run's loss over seeds, nats.
        seed_freedom: its degrees of freedom, by confirm runs; 0: it is assumed.
        last_doubling: see `BestOfK`; None where no search has ended.
    """

    arm: str
    size: int
    ranked: tuple[Ranked, ...]
    seed_sd: float
    seed_freedom: int
    last_doubling: float | None

    @property
    def best(self) -> Ranked:
        return self.ranked[0]

    @property
    def near(self) -> int:
        """Configurations that are not told apart from the best."""
        return sum(not other.told_apart for other in self.ranked[1:])

    @property
    def reach(self) -> float:
        """Nats that seeds alone are unlikely to put between the two best."""
        second = self.ranked[min(1, len(self.ranked) - 1)]
        return _reach(self.seed_sd, self.seed_freedom, self.best, second)


def rankings(results: StudyResults, cells: Sequence[CellSummary]) -> tuple[Ranking, ...]:
    """Of every arm and size with a complete trial, in the order of `cells`, its own."""
    gains = {(curve.arm, curve.size): curve.last_doubling for curve in best_of_k(results)}
    tried: dict[tuple[str, int], list[Ranked]] = defaultdict(list)
    for trial in results.trials:
        loss, done = score_of(trial), trial.state is TrialState.COMPLETE
        if trial.spec.stage is Stage.SEARCH and done and loss is not None:
            one = Ranked(trial, loss, 0, mean_metrics([validation_metrics_of(trial)]))
            tried[trial.spec.arm, trial.spec.size].append(one)
    return tuple(
        _ranking(results.config, cell, found, gains.get((cell.arm, cell.size)))
        for cell in cells
        if (found := _confirmed(cell) or tried[cell.arm, cell.size])
    )


def to_comparison(config: StudyConfig) -> tuple[str, int]:
    """What makes a sweep a study that can choose between the arms at its size: the lines to change
    in its file, and how many trials that adds, all of them where an arm is added."""
    names, pair = config.arms.names, pairs_of(config.arms.names)[0]
    both = config
    if len(names) < 2:
        both = config.model_copy(update={"arms": read_arms(list(pair))})
    growth = Growth(both, mended(both, config.decision.dataset_size or config.dataset_sizes[-1]))
    if len(names) > 1:
        return growth.change, growth.trials
    lines = [f"arms: [{', '.join(pair)}]", *([growth.change] if growth.change else [])]
    return ", ".join(lines), sum(planned_runs(growth.after).values())


def _ranking(
    config: StudyConfig, cell: CellSummary, found: Sequence[Ranked], last_doubling: float | None
) -> Ranking:
    sd, freedom = pooled_sd([replicate.validation_losses for replicate in cell.replicates])
    if not freedom:  # the assumption is about the difference between two runs
        sd = math.sqrt(assumed_noise(config.search.trials).within / 2)
    ascending = sorted(found, key=lambda one: (one.loss, one.trial.spec.trial_id))
    best = ascending[0]
    ranked = tuple(
        replace(one, behind=gap, told_apart=gap > _reach(sd, freedom, best, one))
        for one in ascending
        for gap in (one.loss - best.loss,)
    )
    return Ranking(cell.arm, cell.size, ranked, sd, freedom, last_doubling)


def _reach(sd: float, freedom: int, one: Ranked, other: Ranked) -> float:
    """Nats below which `LEVEL` of the differences that seeds alone make lie: by Student's t, or the
    normal distribution where the deviation is assumed."""
    side = 0.5 + LEVEL / 2
    quantile = float(special.stdtrit(freedom, side) if freedom else special.ndtri(side))
    return quantile * sd * math.sqrt(1 / max(one.runs, 1) + 1 / max(other.runs, 1))


def _confirmed(cell: CellSummary) -> list[Ranked]:
    """The winners that were trained again."""
    return [
        Ranked(
            replicate.winner,
            replicate.confirm_score,
            len(replicate.validation_losses),
            mean_metrics([validation_metrics_of(run) for run in replicate.confirm]),
        )
        for replicate in cell.replicates
        if replicate.winner is not None and replicate.confirm_score is not None
    ]
