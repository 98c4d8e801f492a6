"""What the analysis hands to reports: frozen records of numbers that were computed once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.analysis.cells.cost_records import CellCost
from study.analysis.rules import Pair
from study.basics.text_format import counted
from study.protocol.records import TrialRecord
from study.strategies import arm_label

Split = Literal["test", "validation"]


def score_of(trial: TrialRecord) -> float | None:
    """The trial's lowest validation loss in nats, or None if it has none that is finite."""
    score = trial.score
    return score if score is not None and math.isfinite(score) else None


def extent(replicates: int, runs: int) -> str:
    """How many runs stand behind a mean, e.g. ``3 replicates x 2 seeds``."""
    if runs == replicates:
        return counted(replicates, "replicate")
    if runs % replicates == 0:
        return f"{counted(replicates, 'replicate')} x {counted(runs // replicates, 'seed')}"
    return f"{counted(runs, 'run')} of {counted(replicates, 'replicate')}"


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates, each of them first averaged over its runs.

    Attributes:
        mean: mean of the replicate means.
        low, high: lowest and highest replicate mean.
        sd: sample standard deviation of the replicate means, None with fewer than two.
        replicates: how many replicates have at least one run.
        runs: how many runs over all replicates.
        equal_runs: whether every replicate has the same number of runs.
    """

    mean: float
    low: float
    high: float
    sd: float | None
    replicates: int
    runs: int
    equal_runs: bool = True

    @property
    def extent(self) -> str:
        """E.g. ``3 replicates x 2 seeds``."""
        if not self.equal_runs:
            return f"{counted(self.runs, 'run')} of {counted(self.replicates, 'replicate')}"
        return extent(self.replicates, self.runs)


@dataclass(frozen=True)
class StateCounts:
    """Trials by state; `stopped_early` (patience) and `diverged` are shares of others.

    Attributes:
        waiting: nobody started them; confirm runs of winners not yet known are among them.
        paused: begun, and their driver is gone; they go on when the study is run again.
        stopped_early: of `complete`: ended by patience.
        diverged: of `failed`: ended by a loss that was not finite.
    """

    waiting: int = 0
    running: int = 0
    paused: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    stopped_early: int = 0
    diverged: int = 0

    @property
    def planned(self) -> int:
        return self.waiting + self.running + self.paused + self.ended

    @property
    def ended(self) -> int:
        return self.complete + self.pruned + self.failed


@dataclass(frozen=True)
class ReplicateSummary:
    """One replicate of one cell: its winner and the winner's confirm runs.

    Attributes:
        arm, size, replicate: which one.
        winner: the COMPLETE search trial with the lowest validation loss; None while any search
            trial has not ended (the arms must have had equally many), or when none completed.
        leader: the same without waiting for the rest.
        search_planned: all search trials.
        confirm: confirm runs of this winner that count, in plan order: COMPLETE ones, and those
            that diverged, which score what the base model does.
        confirm_failed: confirm runs that failed otherwise; they are in no mean.
        confirm_diverged: how many of `confirm` diverged.
        confirm_stale: such runs of a former winner (a study that was extended); they are in no
            mean either.
        validation_losses: nats, best evaluation of each confirm run.
        test_losses: nats, of each confirm run that has one.
        retention_rises: nats, of each confirm run over the base model's retention loss.
    """

    arm: str
    size: int
    replicate: int
    winner: TrialRecord | None
    leader: TrialRecord | None
    search_planned: int
    confirm: tuple[TrialRecord, ...]
    confirm_failed: int
    confirm_diverged: int
    confirm_stale: int
    validation_losses: tuple[float, ...]
    test_losses: tuple[float, ...]
    retention_rises: tuple[float, ...]

    @property
    def search_score(self) -> float | None:
        """The winner's own validation loss in the search, nats."""
        return None if self.winner is None else score_of(self.winner)

    @property
    def confirm_score(self) -> float | None:
        """Mean validation loss of the confirm runs, nats; None without any."""
        return mean(self.validation_losses)

    @property
    def test_loss(self) -> float | None:
        """Mean test loss of the confirm runs, nats; None without any."""
        return mean(self.test_losses)

    @property
    def retention_rise(self) -> float | None:
        """Mean rise of the retention loss over the base model's, nats; None if not measured."""
        return mean(self.retention_rises)


@dataclass(frozen=True)
class CellSummary:
    """One arm at one dataset size.

    Attributes:
        validation: the winners' validation loss in the search. It picked them, so it flatters.
        test: test loss of the winners' confirm runs.
        retention_rise: rise of their retention loss over the base model's.
        metrics: classification: mean test metric over all confirm runs, by name.
        validation_metrics: the same of the winners in the search.
    """

    arm: str
    size: int
    counts: StateCounts
    replicates: tuple[ReplicateSummary, ...]
    validation: Estimate | None
    test: Estimate | None
    retention_rise: Estimate | None
    metrics: dict[str, float]
    validation_metrics: dict[str, float]
    cost: CellCost

    def loss(self, split: Split) -> Estimate | None:
        return self.test if split == "test" else self.validation

    def metrics_on(self, split: Split) -> dict[str, float]:
        return self.metrics if split == "test" else self.validation_metrics

    @property
    def best(self) -> ReplicateSummary | None:
        """The replicate whose winner to reuse: lowest mean confirm validation loss; lowest search
        validation loss while no winner has a confirm run; None without a winner."""
        confirmed = [r for r in self.replicates if r.confirm_score is not None]
        if confirmed:
            return min(confirmed, key=lambda r: (r.confirm_score, r.replicate))
        won = [r for r in self.replicates if r.search_score is not None]
        return min(won, key=lambda r: (r.search_score, r.replicate), default=None)


@dataclass(frozen=True)
class Difference:
    """Of two arms at one dataset size, paired over replicates: above 0 favours the challenger.

    Attributes:
        pair: which is compared with which.
        split: ``test`` (confirm runs) or ``validation`` (winners' search scores).
        mean: nats, mean over the paired replicates.
        low, high: nats, lowest and highest replicate.
        arms: each arm's mean loss over the same replicates.
        cold_cost_ratio: device-seconds of one run of the challenger over one of the reference,
            each with an empty prefix cache at its start; None when either arm has no run that went
            to its last step.
        spent_cost_ratio: the same as really spent.
        interval: nats, ends of the 95 % interval of the mean difference by the study's curve; None
            on the validation split, and without a curve.
    """

    pair: Pair
    size: int
    split: Split
    mean: float
    low: float
    high: float
    arms: dict[str, Estimate]
    cold_cost_ratio: float | None
    spent_cost_ratio: float | None
    interval: tuple[float, float] | None = None

    @property
    def extent(self) -> str:
        """How many runs per arm, e.g. ``3 replicates x 2 seeds``."""
        first, second = (self.arms[arm] for arm in self.pair)
        if first.runs == second.runs and first.equal_runs == second.equal_runs:
            return first.extent
        return ", ".join(f"{self.arms[arm].extent} ({arm_label(arm)})" for arm in self.pair)

    @property
    def replicates(self) -> int:
        """How many are paired."""
        return self.arms[self.pair.reference].replicates

    def to_dict(self) -> dict[str, Any]:
        """Plain values; an arm's mean loss is named by it."""
        found = dataclasses.asdict(self)
        del found["pair"]
        told = [found["arms"] if name == "arms" else {name: found[name]} for name in found]
        return {name: value for part in told for name, value in part.items()}


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


GateStatus = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Gate:
    """A condition that must hold before there is a verdict.

    Attributes:
        name: e.g. ``Dataset sizes``.
        status: ``fail`` forbids a verdict, ``warn`` goes into its wording.
        found: what the study has, with numbers, e.g. ``4 sizes from 32 to 256 (8.0x)``.
        needed: the condition, e.g. ``at least 4 sizes spanning 8x``.
        remedy: what to do about it; empty on ``pass``.
        from_plan: running the study as its file says, or with more runs of the same kind, mends
            it; else it is about what came out.
    """

    name: str
    status: GateStatus
    found: str
    needed: str
    remedy: str = ""
    from_plan: bool = False


_TELLING = 10.0
"""Farther apart, as a factor, an interval's ends say nothing of a ratio."""


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval; both None where one run says nothing of the
    next."""

    value: float
    low: float | None = None
    high: float | None = None

    def mapped(self, by: Callable[[float], float]) -> Interval:
        """Its numbers through a rising function."""
        low, high = (None if end is None else by(end) for end in (self.low, self.high))
        return Interval(by(self.value), low, high)

    @property
    def may_be_any_ratio(self) -> bool:
        """Of a ratio: its ends are so far apart, as a factor, that they tell nothing."""
        if self.low is None or self.high is None:
            return False
        return self.high > _TELLING * self.low
