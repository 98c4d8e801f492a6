"""Shares of trials with Wilson intervals, and how each arm's trials ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

from study.analysis.cells.base import Interval, StateCounts
from study.analysis.cells.estimates import count_states
from study.protocol.records import Stage, TrialRecord
from study.protocol.results import StudyResults

Z = 1.959963984540054
"""Standard normal quantile at .975: 95 % intervals."""


def wilson(successes: int, trials: int) -> Interval:
    """A share with its 95 % score interval (Wilson 1927, "Probable inference, the law of
    succession, and statistical inference", JASA 22; no continuity correction).

    Args:
        successes: 0 to `trials`.
        trials: number of independent trials. None at all say nothing: value 0, interval 0 to 1.

    Returns:
        Share and interval ends, each 0 to 1.

    Raises:
        ValueError: `successes` is negative or more than `trials`.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be between 0 and trials: {successes} of {trials}")
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    share = successes / trials
    scale = 1 + Z**2 / trials
    centre = (share + Z**2 / (2 * trials)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    # Rounding must not leave 1e-17 where the formula gives exactly 0 (or 1).
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(share, low, high)


@dataclass(frozen=True)
class TrialShares:
    """How the trials of one arm and stage ended.

    Attributes:
        arm, stage: which ones, over all sizes and replicates.
        counts: their numbers by state.
        complete, pruned, failed: shares of those that ended; they add up to 1.
        stopped_early: share that patience ended; part of `complete`.
        diverged: share that ended with a loss that was not finite; part of `failed`.
    """

    arm: str
    stage: Stage
    counts: StateCounts
    complete: Interval
    stopped_early: Interval
    pruned: Interval
    failed: Interval
    diverged: Interval


def trial_shares(results: StudyResults) -> tuple[TrialShares, ...]:
    """Search trials of each arm in the study's order, then their confirm runs if any are on
    record."""
    groups: dict[tuple[Stage, str], list[TrialRecord]] = {
        (stage, arm): [] for stage in Stage for arm in results.config.arms.names
    }
    for trial in results.trials:
        groups[trial.spec.stage, trial.spec.arm].append(trial)
    return tuple(
        _shares(arm, stage, trials)
        for (stage, arm), trials in groups.items()
        if trials or stage is Stage.SEARCH
    )


def _shares(arm: str, stage: Stage, trials: list[TrialRecord]) -> TrialShares:
    counts = count_states(trials, confirm_seeds=0)
    return TrialShares(
        arm=arm,
        stage=stage,
        counts=counts,
        complete=wilson(counts.complete, counts.ended),
        stopped_early=wilson(counts.stopped_early, counts.ended),
        pruned=wilson(counts.pruned, counts.ended),
        failed=wilson(counts.failed, counts.ended),
        diverged=wilson(counts.diverged, counts.ended),
    )
