"""From the confirm runs of both arms to what the curve is fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from study.analysis.base import CellSummary, ReplicateSummary
from study.analysis.curve import Curve, Floats, PairedLosses, split_covariance
from study.records import TrialOutcome


def fit_curve(cells: Sequence[CellSummary], test_targets: Sequence[int]) -> Curve | None:
    """D(n) over the study's sizes; None where the confirm runs are too few for it.

    Args:
        cells: of both arms.
        test_targets: targets of each test example; empty if they are not on record (each example
            then weighs the same in the test split's error).
    """
    try:
        paired = pair_losses(cells, test_targets)
        return None if paired is None else Curve(paired)
    except ValueError:
        return None


def pair_losses(cells: Sequence[CellSummary], test_targets: Sequence[int]) -> PairedLosses | None:
    """The replicates that both arms confirmed, their runs paired by seed; None if there is none.

    Raises:
        ValueError: the test split has but one example.
    """
    arms: dict[str, dict[tuple[int, int], ReplicateSummary]] = {"full": {}, "lift": {}}
    for cell in cells:
        arms[cell.arm] |= {(cell.size, r.replicate): r for r in cell.replicates}
    points = []
    for key in sorted(arms["full"].keys() & arms["lift"].keys()):
        full, lift = (_confirmed(arms[arm][key]) for arm in ("full", "lift"))
        pairs = [(full[seed], lift[seed]) for seed in sorted(full.keys() & lift.keys())]
        if pairs:
            points.append((key[0], pairs))
    if not points:
        return None
    gaps = [np.array([_test(f) - _test(g) for f, g in pairs]) for _, pairs in points]
    covariance, examples = _test_error([pairs for _, pairs in points], test_targets)
    return PairedLosses(
        sizes=np.array([size for size, _ in points], dtype=float),
        differences=np.array([gap.mean() for gap in gaps]),
        pairs=np.array([len(gap) for gap in gaps]),
        scatter=np.array([((gap - gap.mean()) ** 2).sum() for gap in gaps]),
        test_covariance=covariance,
        test_examples=examples,
    )


def _confirmed(replicate: ReplicateSummary) -> dict[int, TrialOutcome]:
    """Confirm runs with a finite test loss by their place in the plan, which the arms share."""
    return {
        trial.spec.index: trial.outcome
        for trial in replicate.confirm
        if trial.outcome is not None and np.isfinite(_test(trial.outcome))
    }


def _test(outcome: TrialOutcome) -> float:
    return float("nan") if outcome.test_loss is None else outcome.test_loss


def _test_error(
    points: Sequence[Sequence[tuple[TrialOutcome, TrialOutcome]]], test_targets: Sequence[int]
) -> tuple[Floats, int]:
    """`split_covariance` of the points; zeros where the examples' losses are not on record."""
    lengths = {len(outcome.test_losses) for pairs in points for pair in pairs for outcome in pair}
    examples = lengths.pop()
    if lengths or not examples:
        return np.zeros((len(points), len(points))), 1
    differences = [
        np.mean([np.subtract(f.test_losses, g.test_losses) for f, g in pairs], axis=0)
        for pairs in points
    ]
    known = len(test_targets) == examples
    return split_covariance(differences, test_targets if known else np.ones(examples))
