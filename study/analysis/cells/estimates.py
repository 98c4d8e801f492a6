"""From trial records to winners, means and paired differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np

from study.analysis.cells.base import (
    CellSummary,
    Difference,
    Estimate,
    ReplicateSummary,
    Split,
    StateCounts,
    score_of,
)
from study.analysis.rules import Pair
from study.protocol.records import BaseModelRecord, OutcomeStatus, Stage, TrialRecord, TrialState
from study.protocol.results import winner_of


def count_states(trials: Sequence[TrialRecord], confirm_seeds: int) -> StateCounts:
    """Trials by state.

    Args:
        confirm_seeds: confirm runs per replicate; those of a replicate whose search has not ended
            are not on record yet and count as waiting.
    """
    searching = {
        (t.spec.arm, t.spec.size, t.spec.replicate)
        for t in trials
        if t.spec.stage is Stage.SEARCH and not t.state.has_ended
    }
    states = [t.state for t in trials]
    ends = [(t.state, t.outcome.status) for t in trials if t.outcome is not None]
    return StateCounts(
        waiting=states.count(TrialState.WAITING) + confirm_seeds * len(searching),
        running=states.count(TrialState.RUNNING),
        paused=states.count(TrialState.PAUSED),
        complete=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        failed=states.count(TrialState.FAIL),
        stopped_early=ends.count((TrialState.COMPLETE, OutcomeStatus.STOPPED_EARLY)),
        diverged=ends.count((TrialState.FAIL, OutcomeStatus.DIVERGED)),
    )


def estimate(groups: Iterable[Sequence[float]]) -> Estimate | None:
    """Mean of replicate means.

    Args:
        groups: per replicate the values of its runs; empty ones are left out.
    """
    kept = [tuple(group) for group in groups if len(group)]
    if not kept:
        return None
    means = np.array([np.mean(group) for group in kept])
    return Estimate(
        mean=float(means.mean()),
        low=float(means.min()),
        high=float(means.max()),
        sd=float(means.std(ddof=1)) if len(means) > 1 else None,
        replicates=len(kept),
        runs=sum(map(len, kept)),
        equal_runs=len({len(group) for group in kept}) == 1,
    )


def summarise_replicate(
    trials: Sequence[TrialRecord], base: BaseModelRecord | None
) -> ReplicateSummary:
    """One replicate of one cell.

    Args:
        trials: all its trials, search and confirm; at least one.
        base: for the retention rise; None leaves it out.
    """
    search = [t for t in trials if t.spec.stage is Stage.SEARCH]
    confirm = [t for t in trials if t.spec.stage is Stage.CONFIRM]
    able = [t for t in search if t.state is not TrialState.COMPLETE or score_of(t) is not None]
    winner = winner_of(able, len(able))
    scored = [(t, run) for t in confirm if (run := _scored(t, base)) is not None]
    chosen = None if winner is None else winner.spec.hyperparameters
    # A run that diverged was COMPLETE in all but its result: it counts.
    ours = [(t, r) for t, r in scored if chosen is not None and t.spec.hyperparameters == chosen]
    tests = [run.outcome.test_loss for _, run in ours if run.outcome is not None]
    kept = [run.outcome.retention_loss for _, run in ours if run.outcome is not None]
    before = None if base is None else base.retention_loss
    spec = trials[0].spec
    return ReplicateSummary(
        arm=spec.arm,
        size=spec.size,
        replicate=spec.replicate,
        winner=winner,
        leader=winner_of(able, 0),
        search_planned=len(search),
        confirm=tuple(run for _, run in ours),
        confirm_failed=sum(t.state is TrialState.FAIL for t in confirm)
        - sum(t.state is TrialState.FAIL for t, _ in scored),
        confirm_diverged=sum(t.state is TrialState.FAIL for t, _ in ours),
        confirm_stale=len(scored) - len(ours),
        validation_losses=_finite(
            score_of(run) if run is trial or run.outcome is None else run.outcome.score
            for trial, run in ours
        ),
        test_losses=_finite(tests),
        retention_rises=() if before is None else tuple(k - before for k in _finite(kept)),
    )


def _scored(trial: TrialRecord, base: BaseModelRecord | None) -> TrialRecord | None:
    """A confirm run as it counts: itself if it is COMPLETE; if it diverged, one that scores what
    the base model does (leaving it out would reward an arm that diverges); else None."""
    if trial.state is TrialState.COMPLETE:
        return trial
    outcome = trial.outcome
    if base is None or outcome is None or outcome.status != OutcomeStatus.DIVERGED:
        return None
    as_base = dataclasses.replace(
        outcome,
        score=base.validation_loss,
        test_loss=base.test_loss,
        test_losses=base.test_losses,
        test_metrics={},
        retention_loss=None,
    )
    return dataclasses.replace(trial, outcome=as_base)


def pooled_sd(replicates: Iterable[Sequence[float]]) -> tuple[float, int]:
    """(standard deviation of runs around their replicate's mean, its degrees of freedom: 0 where
    no replicate has two runs).

    Args:
        replicates: of each, the values of its runs.
    """
    groups = [np.asarray(runs, dtype=float) for runs in replicates if len(runs)]
    freedom = sum(len(runs) - 1 for runs in groups)
    if not freedom:
        return 0.0, 0
    squares = sum(float(((runs - runs.mean()) ** 2).sum()) for runs in groups)
    return math.sqrt(squares / freedom), freedom


def validation_metrics_of(trial: TrialRecord) -> dict[str, float]:
    """Classification: the metrics at the evaluation that is the trial's score."""
    return {} if trial.best is None else trial.best.validation_metrics


def mean_metrics(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By name, the mean over those that have it."""
    kept = tuple(found)
    names = sorted({name for metrics in kept for name in metrics})
    return {name: fmean(metrics[name] for metrics in kept if name in metrics) for name in names}


def cell_losses(
    replicates: Sequence[ReplicateSummary],
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """(winners' search validation loss, test loss, retention rise)."""
    validation = estimate(_finite([r.search_score]) for r in replicates)
    test = estimate(r.test_losses for r in replicates)
    rise = estimate(r.retention_rises for r in replicates)
    return validation, test, rise


def cell_metrics(replicates: Sequence[ReplicateSummary], split: Split) -> dict[str, float]:
    """Classification: mean metrics of confirm runs on test, of winners' search trials on
    validation."""
    if split == "test":
        runs = [t for r in replicates for t in r.confirm]
        return mean_metrics(t.outcome.test_metrics for t in runs if t.outcome is not None)
    return mean_metrics(validation_metrics_of(r.winner) for r in replicates if r.winner)


def paired_difference(
    reference: CellSummary, challenger: CellSummary, split: Split
) -> Difference | None:
    """reference - challenger over the replicates that both arms have; None if there is none.

    Replicates of one number share their data subset in both arms, hence the pairs.
    """
    left = {r.replicate: runs for r in reference.replicates if (runs := _losses(r, split))}
    right = {r.replicate: runs for r in challenger.replicates if (runs := _losses(r, split))}
    pairs = sorted(left.keys() & right.keys())
    ours = estimate(left[p] for p in pairs)
    theirs = estimate(right[p] for p in pairs)
    if ours is None or theirs is None:
        return None
    gaps = [float(np.mean(left[p]) - np.mean(right[p])) for p in pairs]
    above, below = challenger.cost, reference.cost
    return Difference(
        pair=Pair(reference.arm, challenger.arm),
        size=reference.size,
        split=split,
        mean=float(np.mean(gaps)),
        low=min(gaps),
        high=max(gaps),
        arms={reference.arm: ours, challenger.arm: theirs},
        cold_cost_ratio=_ratio(above.run_cold_device_seconds, below.run_cold_device_seconds),
        spent_cost_ratio=_ratio(above.run_device_seconds, below.run_device_seconds),
    )


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _losses(replicate: ReplicateSummary, split: Split) -> tuple[float, ...]:
    return replicate.test_losses if split == "test" else _finite([replicate.search_score])


def _finite(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(v for v in values if v is not None and math.isfinite(v))
