"""Forgetting: the rise of the loss on general text, as it is and at equal task loss.

Less forgetting may only mean less learning. So the arms are also compared at the same task loss:
within an arm, runs that learned more forgot more, and by that slope each pair's difference in
forgetting is corrected for its difference in task loss (analysis of covariance).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from study.analysis.cells.base import CellSummary
from study.analysis.curve.fit import Curve, PairedLosses
from study.analysis.curve.pairing import PairedPoint, curve_of, paired_losses
from study.protocol.records import TrialRecord

_FEWEST_RUNS = 6
"""Of both arms together, for a slope that is worth anything."""


def retention_loss(trial: TrialRecord) -> float | None:
    """Nats on general text; None where it was not measured."""
    return None if trial.outcome is None else trial.outcome.retention_loss


def forgetting_curves(
    cells: Sequence[CellSummary], points: Sequence[PairedPoint]
) -> tuple[Curve | None, Curve | None]:
    """Nats of retention loss by dataset size: (as measured, at equal task loss).

    Above 0: the challenger forgets less. The second is None where the arms' task losses do not
    overlap.
    """
    raw = paired_losses(points, retention_loss)
    return curve_of(raw), curve_of(None if raw is None else _matched(cells, points, raw))


def _matched(
    cells: Sequence[CellSummary], points: Sequence[PairedPoint], raw: PairedLosses
) -> PairedLosses | None:
    slope = _slope(cells)
    both = [p for p in points if any(_has_both(f) and _has_both(g) for f, g in p.pairs)]
    task = paired_losses(both, lambda t: _task_loss(t) if _has_both(t) else None)
    if slope is None or task is None or len(task.sizes) != len(raw.sizes):
        return None
    value, variance, freedom = slope
    return dataclasses.replace(
        raw,
        differences=raw.differences - value * task.differences,
        # The slope's error is common to all points, as the test split's is to a difference.
        test_covariance=np.outer(task.differences, task.differences) * variance,
        test_examples=freedom + 1,
    )


def _slope(cells: Iterable[CellSummary]) -> tuple[float, float, int] | None:
    """Retention loss over task loss within the arms: (slope, its variance, degrees of freedom)."""
    losses: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        for replicate in cell.replicates:
            runs = [_both(t) for t in replicate.confirm if _has_both(t)]
            if runs:
                losses.setdefault(cell.arm, []).extend(runs)
    arms = [np.array(found) for found in losses.values()]
    if len(arms) < 2 or sum(map(len, arms)) < _FEWEST_RUNS:
        return None
    ends = [(arm[:, 0].min(), arm[:, 0].max()) for arm in arms]
    if max(low for low, _ in ends) > min(high for _, high in ends):
        return None
    x, y = (np.concatenate([arm[:, i] - arm[:, i].mean() for arm in arms]) for i in (0, 1))
    spread = float(x @ x)
    freedom = len(x) - len(arms) - 1
    if spread == 0 or freedom < 1:
        return None
    slope = float(x @ y) / spread
    residuals = y - slope * x
    return slope, float(residuals @ residuals) / freedom / spread, freedom


def _task_loss(trial: TrialRecord) -> float | None:
    return None if trial.outcome is None else trial.outcome.test_loss


def _has_both(trial: TrialRecord) -> bool:
    return _task_loss(trial) is not None and retention_loss(trial) is not None


def _both(trial: TrialRecord) -> tuple[float, float]:
    task, retention = _task_loss(trial), retention_loss(trial)
    assert task is not None and retention is not None  # the caller asked `_has_both`
    return task, retention
