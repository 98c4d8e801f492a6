"""Which runs are compared with which: confirm runs of both arms, paired by subset and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.cells.base import CellSummary, ReplicateSummary
from study.analysis.curve.fit import Curve, Floats, PairedLosses, split_covariance
from study.analysis.rules import Pair
from study.protocol.records import TrialRecord

Quantity = Callable[[TrialRecord], float | None]
"""What is compared of a run; None or NaN where it was not measured."""
SplitNoise = Callable[[Sequence["PairedPoint"]], tuple[Floats, int]]
"""(points, points) covariance that a split common to all runs causes, and the number of
independent examples behind it."""


@dataclass(frozen=True)
class PairedPoint:
    """A replicate that both arms confirmed.

    Attributes:
        pairs: (reference, challenger) runs with the same subset and the same order of examples.
    """

    size: int
    replicate: int
    pairs: tuple[tuple[TrialRecord, TrialRecord], ...]


def pair_runs(cells: Iterable[CellSummary], pair: Pair) -> tuple[PairedPoint, ...]:
    """By ascending size and replicate; runs without a counterpart are left out."""
    arms: dict[str, dict[tuple[int, int], ReplicateSummary]] = {arm: {} for arm in pair}
    for cell in cells:
        arms[cell.arm] |= {(cell.size, r.replicate): r for r in cell.replicates}
    points = []
    for size, replicate in sorted(arms[pair.reference].keys() & arms[pair.challenger].keys()):
        left, right = (_by_index(arms[arm][size, replicate]) for arm in pair)
        pairs = tuple((left[i], right[i]) for i in sorted(left.keys() & right.keys()))
        if pairs:
            points.append(PairedPoint(size, replicate, pairs))
    return tuple(points)


def paired_losses(
    points: Iterable[PairedPoint], quantity: Quantity, split_error: SplitNoise | None = None
) -> PairedLosses | None:
    """reference - challenger of a quantity; None if no pair has it in both arms.

    Args:
        split_error: what to add for the split that the quantity was measured on; None: nothing.
    """
    kept, gaps = [], []
    for point in points:
        both = [(pair, quantity(pair[0]), quantity(pair[1])) for pair in point.pairs]
        found = [(pair, f - g) for pair, f, g in both if f is not None and g is not None]
        found = [(pair, gap) for pair, gap in found if math.isfinite(gap)]
        if found:
            pairs = tuple(pair for pair, _ in found)
            kept.append(PairedPoint(point.size, point.replicate, pairs))
            gaps.append([gap for _, gap in found])
    return _gathered([p.size for p in kept], gaps, split_error and (lambda: split_error(kept)))


def single_losses(
    replicates: Iterable[ReplicateSummary],
    quantity: Quantity,
    split_error: Callable[[Sequence[ReplicateSummary]], tuple[Floats, int]] | None = None,
) -> PairedLosses | None:
    """The same of one arm's runs by themselves."""
    kept, values = [], []
    for replicate in replicates:
        found = [v for t in replicate.confirm if (v := quantity(t)) is not None]
        if found:
            kept.append(replicate)
            values.append(found)
    return _gathered([r.size for r in kept], values, split_error and (lambda: split_error(kept)))


def curve_of(points: PairedLosses | None) -> Curve | None:
    """The curve through the points; None where they are too few for one."""
    try:
        return None if points is None else Curve(points)
    except ValueError:
        return None


def examples_error(
    differences: Sequence[Sequence[Floats]], weights: Sequence[int]
) -> tuple[Floats, int]:
    """The test split's error from what is on record of its examples.

    Args:
        differences: per point, of each of its runs, the difference of every example.
        weights: targets of each example; empty if they are not on record (each example then
            weighs the same).

    Returns:
        As `split_covariance`; zeros and 0 where the examples are not on record.
    """
    lengths = {len(run) for point in differences for run in point}
    examples = lengths.pop()
    if lengths or examples < 2:
        return np.zeros((len(differences), len(differences))), 0 if lengths else examples
    means = [np.mean(np.asarray(point), axis=0) for point in differences]
    known = len(weights) == examples
    return split_covariance(means, weights if known else np.ones(examples))


def _gathered(
    sizes: Sequence[int],
    values: Sequence[Sequence[float]],
    split_error: Callable[[], tuple[Floats, int]] | None,
) -> PairedLosses | None:
    if not sizes:
        return None
    arrays = [np.asarray(found, dtype=np.float64) for found in values]
    covariance, examples = np.zeros((len(sizes), len(sizes))), 0
    if split_error is not None:
        covariance, examples = split_error()
    return PairedLosses(
        sizes=np.asarray(sizes, dtype=np.float64),
        differences=np.array([array.mean() for array in arrays]),
        pairs=np.array([len(array) for array in arrays]),
        scatter=np.array([((array - array.mean()) ** 2).sum() for array in arrays]),
        test_covariance=covariance,
        test_examples=examples,
    )


def _by_index(replicate: ReplicateSummary) -> dict[int, TrialRecord]:
    """Confirm runs by their place in the plan, which gives both arms the same seed."""
    return {trial.spec.index: trial for trial in replicate.confirm}
