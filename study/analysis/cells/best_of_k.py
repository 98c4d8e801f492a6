"""What tuning bought: the expected best validation loss of k search trials, against their cost.

Dodge et al. 2019, "Show Your Work: Improved Reporting of Experimental Results" (EMNLP), propose
the expected best of k draws as a curve. Their estimator draws with replacement, which is biased;
here it is the mean over all subsets of k trials, the unbiased one (Tang et al. 2020, "Showing
Your Work Doesn't Always Work", ACL).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from study.analysis.cells.base import score_of
from study.protocol.records import Stage, TrialRecord, TrialState
from study.protocol.results import StudyResults, spent_device_seconds_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BestOfK:
    """Tuning of one arm at one dataset size; sequences have one entry per k = 1, 2, ...

    Whoever draws only trials that failed, or that are worse than the base model, keeps the base
    model: no draw counts as more than its loss (before it is on record, a failed trial counts as
    the worst complete one). A pruned trial has no loss and is no draw, but what it cost is shared
    out among the others. The last entry is thus what the whole search found, and what it cost.

    Attributes:
        arm, size: which cell.
        replicates: replicates whose search has ended, which `losses` is a mean over.
        losses: nats, expected lowest validation loss of k trials.
        low, high: nats, lowest and highest replicate of it.
        device_seconds: expected cost of these k trials as it was spent, checkpoints included.
        failed: draws that failed, over all replicates.
        pruned: pruned trials, over all replicates.
    """

    arm: str
    size: int
    replicates: int
    losses: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    device_seconds: tuple[float, ...]
    failed: int
    pruned: int

    @property
    def trials(self) -> int:
        """The largest k: trials of one search."""
        return len(self.losses)

    @property
    def last_doubling(self) -> float | None:
        """Nats by which the second half of the trials lowered the best loss, 0 or more: near 0
        when more trials would hardly help. None for a search of one trial."""
        half = self.trials // 2
        return self.losses[half - 1] - self.losses[-1] if half else None


def expected_best(losses: Sequence[float] | Floats) -> Floats:
    """Expected lowest loss of k trials for k = 1 to n, the mean over all C(n, k) subsets.

    The i-th lowest (i = 1 to n) is the lowest of C(n - i, k - 1) of these subsets. Trials are
    taken as exchangeable: the order that a sampler tried them in is ignored.

    Args:
        losses: of n trials, finite, at least one.

    Returns:
        n values that never rise: the mean first, the lowest last.
    """
    ascending = np.sort(np.asarray(losses, dtype=float))
    n = len(ascending)
    k, rank = np.arange(1, n + 1)[:, None], np.arange(1, n + 1)[None, :]
    possible = rank <= n - k + 1
    above = np.where(possible, n - rank, n)
    # Binomials overflow from n = 1030 on; their logarithms do not.
    weights = np.where(possible, np.exp(_log_choose(above, k - 1) - _log_choose(n, k)), 0.0)
    best = weights @ ascending
    best[0], best[-1] = ascending.mean(), ascending[0]
    return np.asarray(best, dtype=float)


def best_of_k(results: StudyResults) -> tuple[BestOfK, ...]:
    """One curve per cell with at least one replicate whose search has ended, by ascending size,
    the arms of a size beside one another. Where replicates differ in their number of trials (some
    were pruned), a curve ends with the shortest."""
    base = None if results.base is None else results.base.validation_loss
    searches: dict[tuple[int, str, int], list[TrialRecord]] = defaultdict(list)
    for trial in results.trials:
        if trial.spec.stage is Stage.SEARCH:
            searches[trial.spec.size, trial.spec.arm, trial.spec.replicate].append(trial)
    cells: dict[tuple[int, str], list[list[TrialRecord]]] = defaultdict(list)
    for (size, arm, _), trials in searches.items():
        cells[size, arm].append(trials)
    sizes = sorted({size for size, _ in cells})
    found = (
        _cell(arm, size, cells[size, arm], base)
        for size in sizes
        for arm in results.config.arms.names
        if (size, arm) in cells
    )
    return tuple(curve for curve in found if curve is not None)


def _cell(
    arm: str, size: int, searches: Sequence[Sequence[TrialRecord]], base: float | None
) -> BestOfK | None:
    ended = [s for s in searches if all(t.state.has_ended for t in s)]
    drawn = [(losses, s) for s in ended if len(losses := _draws(s, base))]
    if not drawn:
        return None
    longest = min(len(losses) for losses, _ in drawn)
    curves = np.array([expected_best(losses)[:longest] for losses, _ in drawn])
    per_draw = np.mean([sum(map(spent_device_seconds_of, s)) / len(losses) for losses, s in drawn])
    states = [t.state for _, s in drawn for t in s]
    return BestOfK(
        arm=arm,
        size=size,
        replicates=len(drawn),
        losses=tuple(curves.mean(axis=0).tolist()),
        low=tuple(curves.min(axis=0).tolist()),
        high=tuple(curves.max(axis=0).tolist()),
        device_seconds=tuple((float(per_draw) * np.arange(1, longest + 1)).tolist()),
        failed=states.count(TrialState.FAIL),
        pruned=states.count(TrialState.PRUNED),
    )


def _draws(search: Sequence[TrialRecord], base: float | None) -> tuple[float, ...]:
    """Losses of complete and of failed trials; empty where nothing is known of any."""
    states = [t.state for t in search]
    scores = [score_of(t) for t in search if t.state is TrialState.COMPLETE]
    complete = [score for score in scores if score is not None]
    fallback = max(complete, default=None) if base is None else base
    if fallback is None:
        return ()
    lost = states.count(TrialState.FAIL) + len(scores) - len(complete)
    return tuple(min(loss, fallback) for loss in complete) + (fallback,) * lost


def _log_choose(n: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    n, k = np.asarray(n, dtype=float), np.asarray(k, dtype=float)
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
