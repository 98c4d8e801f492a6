"""Analyses and plans that look reasonable and are wrong: each has to miss a judged quantity.

Those of the analysis change one thing in the evidence and leave the decision as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from study.analysis import Evidence
from study.analysis.curve.fit import Curve, Floats, Intervals, PairedLosses
from study.protocol.plan import Cell
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from tests.simulation.plans import LaidOut
from tests.simulation.reading import Reading

EvidenceMutant = Callable[[Evidence], Evidence]
_RESAMPLES = 200


class StraightLine(Curve):
    """Never bends."""

    @property
    def degree(self) -> int:
        return 1

    @degree.setter
    def degree(self, wanted: int) -> None:
        pass


class PooledVariance(Curve):
    """Takes the noise to be the same at all sizes: least squares as the textbook has it."""

    def _estimate(self, sizes: Floats) -> tuple[Floats, Floats, Floats]:
        difference, squares, _ = super()._estimate(sizes)
        weights = self._terms(np.log2(sizes)) @ self._solve
        test = np.einsum("ki,ij,kj->k", weights, self.paired.test_covariance, weights)
        scatter = self.variance * (weights**2).sum(axis=1)
        return difference, scatter + test, np.full(len(squares), float(self.freedom))


class PercentileBootstrap(Curve):
    """Draws replicates within their sizes, again and again, and reads the interval off."""

    def __init__(self, paired: PairedLosses) -> None:
        super().__init__(paired)
        random, points = np.random.default_rng(0), len(paired.sizes)
        drawn = np.empty((_RESAMPLES, points), dtype=int)
        for size in np.unique(paired.sizes):
            mine = np.flatnonzero(paired.sizes == size)
            drawn[:, mine] = random.choice(mine, (_RESAMPLES, len(mine)))
        self._resampled = paired.differences[drawn]

    def at(self, sizes: ArrayLike) -> Intervals:
        sizes = np.atleast_1d(np.asarray(sizes, dtype=float))
        weights = self._terms(np.log2(sizes)) @ self._solve
        found = self._resampled @ weights.T
        low, high = np.percentile(found, [2.5, 97.5], axis=0)
        freedom, error = np.full(len(sizes), 1e6), found.std(axis=0)
        return Intervals(sizes, weights @ self.paired.differences, error, freedom, low, high)


def with_curve(make: Callable[[PairedLosses], Curve]) -> EvidenceMutant:
    """Fits the same losses another way."""

    def mutant(evidence: Evidence) -> Evidence:
        if evidence.curve is None:
            return evidence
        return dataclasses.replace(evidence, curve=make(evidence.curve.paired))

    return mutant


def _without_split_error(paired: PairedLosses) -> Curve:
    nothing = np.zeros_like(paired.test_covariance)
    return Curve(dataclasses.replace(paired, test_covariance=nothing))


straight_line = with_curve(StraightLine)
pooled_variance = with_curve(PooledVariance)
percentile_bootstrap = with_curve(PercentileBootstrap)
split_error_ignored = with_curve(_without_split_error)


def best_validation_picker(results: StudyResults, sizes: Sequence[int]) -> Reading:
    """Recommends the arm of the lowest validation loss seen at the nearest tested size, sure of
    it."""
    lowest: dict[tuple[str, int], float] = {}
    for trial in results.trials:
        if trial.state is TrialState.COMPLETE and trial.score is not None:
            key = trial.spec.arm, trial.spec.size
            lowest[key] = min(lowest.get(key, math.inf), trial.score)
    tested = sorted({size for _, size in lowest})
    near = [min(tested, key=lambda n: abs(math.log(n / size))) for size in sizes]
    gaps = tuple(lowest["full", n] - lowest["lift", n] for n in near)
    lift = tuple(float(gap > 0) for gap in gaps)
    full = tuple(1.0 - share for share in lift)
    return Reading(
        sizes=tuple(sizes),
        differences=gaps,
        low=gaps,
        high=gaps,
        lift_better=lift,
        lift_better_by_rho=lift,
        full_better=full,
        full_better_by_rho=full,
        answers=tuple("better:lift" if gap > 0 else "better:full" for gap in gaps),
        failed=(),
        crossover="crossover" if min(gaps) < 0 < max(gaps) else "unidentified",
        crossover_range=(tested[0], tested[-1]),
    )


def shared_subsets(laid_out: LaidOut) -> LaidOut:
    """A plan whose replicates of a size all train on the first one's subset."""
    first = {
        cell.size: seed
        for cell, seed in zip(laid_out.cells, laid_out.subset_seeds, strict=True)
        if cell.replicate == 0
    }
    seeds = np.array([first[cell.size] for cell in laid_out.cells])
    return dataclasses.replace(laid_out, subset_seeds=seeds)


def one_bracket(cell: Cell) -> int:
    """Whose trials a pruner compares: all of a size, whatever arm and replicate."""
    return cell.size
