"""D(n), the arms' difference by dataset size: the fitted curve, its intervals, where it crosses 0.

D(n) is the reference's test loss less the challenger's (see `Pair`). A polynomial in log2 n is
fitted to the means of the replicates. Its variance is HC2 (MacKinnon and White 1985), since noise
is larger at small sizes, with the degrees of freedom of Bell and McCaffrey (2002): the fewer of
those under equal noise and under the noise found at each size, as the first are too many where
the noise of one size outweighs that of the others. The error of the test split, common to all
replicates and so invisible in their scatter, is added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # not scipy.stats, which takes two to three times as long to import

from study.analysis.rules import LEVEL, Pair

_BEND_FROM = 8
"""Points from which the curve may bend: degree 2 instead of 1."""
_PRIOR_POINTS = 2.0
_GRID = 201
"""Sizes at which the band is looked at, evenly spaced in log n over the tested range."""

Floats = NDArray[np.float64]
Side = Literal["reference", "challenger"]


@dataclass(frozen=True, eq=False)
class PairedLosses:
    """What the confirm runs say, a point per (size, replicate) that both arms have.

    Attributes:
        sizes: (points,) training examples.
        differences: (points,) nats, reference - challenger, mean over the point's confirm pairs.
        pairs: (points,) confirm pairs, R in the formulas.
        scatter: (points,) squared deviations of the pairs' differences from their mean, summed.
        test_covariance: (points, points) covariance of the differences that is due to which
            examples the test split happens to hold; see `split_covariance`.
        test_examples: independent test examples (or sources of them) behind it; 0 where their
            error is not on record, or there is none.
    """

    sizes: Floats
    differences: Floats
    pairs: NDArray[np.int64]
    scatter: Floats
    test_covariance: Floats
    test_examples: int

    @property
    def within_variance(self) -> float | None:
        """Pooled variance s_w^2 of one pair's difference around its replicate's mean; None when no
        replicate has two."""
        spare = int((self.pairs - 1).sum())
        return float(self.scatter.sum() / spare) if spare > 0 else None


@dataclass(frozen=True, eq=False)
class Intervals:
    """D at the sizes that were asked for; arrays of one length.

    Attributes:
        sizes: training examples.
        difference: nats.
        error: standard error of `difference`, nats.
        freedom: its degrees of freedom.
        low, high: ends of the `LEVEL` interval, nats.
    """

    sizes: Floats
    difference: Floats
    error: Floats
    freedom: Floats
    low: Floats
    high: Floats

    @classmethod
    def around(
        cls, sizes: Floats, difference: Floats, error: Floats, freedom: Floats, reach: Floats
    ) -> Intervals:
        """With ends `reach` standard errors from the difference."""
        width = reach * error
        return cls(sizes, difference, error, freedom, difference - width, difference + width)

    def probability_above(self, margin: float) -> Floats:
        """P(D > margin), margin in nats."""
        gap = self.difference - margin
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.error > 0, gap / self.error, np.sign(gap) * np.inf)
        return np.asarray(special.stdtr(self.freedom, np.where(np.isnan(t), 0.0, t)))

    def probability_below(self, margin: float) -> Floats:
        """P(D < margin), margin in nats."""
        return 1.0 - self.probability_above(margin)


@dataclass(frozen=True)
class Crossover:
    """Where the challenger's advantage ends, or begins, inside the tested sizes.

    Attributes:
        kind: ``crossover``, ``challenger`` or ``reference`` (it is better throughout), or
            ``unidentified``.
        low, high: for ``crossover``: between which sizes D is 0, by the simultaneous band.
        small: for ``crossover``: which is better below it.
    """

    kind: Literal["crossover", "unidentified"] | Side
    low: float | None = None
    high: float | None = None
    small: Side | None = None

    def sides(self, pair: Pair) -> tuple[str, str]:
        """For ``crossover``: the arm that is better below it, and the one above it."""
        small = pair.challenger if self.small == "challenger" else pair.reference
        return small, pair.other(small)

    def throughout(self, pair: Pair) -> str | None:
        """The arm that is better at every tested size; None where that is not shown."""
        return {"challenger": pair.challenger, "reference": pair.reference}.get(self.kind)

    def to_dict(self, pair: Pair) -> dict[str, Any]:
        """Plain values, with arms by their names."""
        return {
            "kind": self.throughout(pair) or self.kind,
            "low": self.low,
            "high": self.high,
            "small": None if self.small is None else self.sides(pair)[0],
        }


class Curve:
    """D(n) fitted to the replicates.

    Attributes:
        degree: of the polynomial in log2 n.
        freedom: residual degrees of freedom.
        variance: s^2, of a replicate's mean difference around the curve; never less than what the
            confirm seeds alone make.
        within_variance: see `PairedLosses`; 0 where it is unknown.

    Raises:
        ValueError: too few points to say how sure the curve is.
    """

    def __init__(self, paired: PairedLosses) -> None:
        self.paired = paired
        self._log = np.log2(paired.sizes)
        self.degree = degree_for(paired.sizes)
        self._center, self._width = float(self._log.mean()), float(np.ptp(self._log) or 1.0)
        design = self._terms(self._log)
        points, terms = design.shape
        self.freedom = points - terms
        if self.freedom < 1:
            raise ValueError(f"{points} points for {terms} terms of the curve")
        if paired.test_examples == 1:
            raise ValueError("one test example says nothing of the others")
        self._solve = np.linalg.pinv(design)
        hat = design @ self._solve
        self._make_residuals = np.eye(points) - hat
        self._spare = np.maximum(1.0 - np.diag(hat), 1e-9)
        residuals = self._make_residuals @ paired.differences
        self._squares = residuals**2 / self._spare
        # M is symmetric and MM = M, so M is the residuals' covariance under equal noise.
        noise = _variance_by_size(paired.sizes, self._squares)
        self._residual_covariances = (
            self._make_residuals,
            (self._make_residuals * noise) @ self._make_residuals,
        )
        self.within_variance = paired.within_variance or 0.0
        floor = self.within_variance / float(np.mean(paired.pairs))
        self.variance = max(float(residuals @ residuals) / self.freedom, floor)

    def at(self, sizes: ArrayLike) -> Intervals:
        """The mean difference at sizes, inside or outside of the tested range."""
        sizes = np.atleast_1d(np.asarray(sizes, dtype=np.float64))
        difference, squares, freedom = self._estimate(sizes)
        reach = special.stdtrit(freedom, 0.5 + LEVEL / 2)
        return Intervals.around(sizes, difference, np.sqrt(squares), freedom, reach)

    def one_run(self, sizes: ArrayLike) -> Intervals:
        """The difference that one more pair of runs would show, each arm tuned once."""
        mean = self.at(sizes)
        seeds = self.within_variance * (1.0 - 1.0 / float(np.mean(self.paired.pairs)))
        spread = self.variance + seeds
        freedom = _combine((mean.error**2, mean.freedom), (spread, float(self.freedom)))
        error = np.sqrt(mean.error**2 + spread)
        reach = special.stdtrit(freedom, 0.5 + LEVEL / 2)
        return Intervals.around(mean.sizes, mean.difference, error, freedom, reach)

    def band(self, sizes: ArrayLike) -> Intervals:
        """`at`, with ends that hold at all sizes at once (Scheffé 1953)."""
        mean = self.at(sizes)
        terms = self.degree + 1
        reach = np.sqrt(terms * special.fdtri(terms, mean.freedom, LEVEL))
        return Intervals.around(mean.sizes, mean.difference, mean.error, mean.freedom, reach)

    def test_error(self, sizes: ArrayLike) -> Floats:
        """The share of `at`'s standard error that is due to the test split's examples, nats."""
        weights = self._weights(np.atleast_1d(np.asarray(sizes, dtype=np.float64)))
        return np.sqrt(np.einsum("ki,ij,kj->k", weights, self.paired.test_covariance, weights))

    def crossover(self) -> Crossover:
        """Claimed only if the band is wholly above 0 at one size and wholly below at another."""
        sizes = np.geomspace(self.paired.sizes.min(), self.paired.sizes.max(), _GRID)
        band = self.band(sizes)
        above, below = band.low > 0, band.high < 0
        if above.all():
            return Crossover("challenger")
        if below.all():
            return Crossover("reference")
        if not (above.any() and below.any()):
            return Crossover("unidentified")
        first_above, first_below = int(above.argmax()), int(below.argmax())
        small: Side = "challenger" if first_above < first_below else "reference"
        # From the last size before the other side is reached, to the first one on it.
        end = max(first_above, first_below)
        start = int(np.flatnonzero((above if small == "challenger" else below)[:end])[-1])
        return Crossover("crossover", float(sizes[start]), float(sizes[end]), small)

    def lack_of_fit(self) -> tuple[float, float] | None:
        """How far the sizes' means lie from the curve: (largest distance in nats, p value of the F
        test against the scatter within sizes); None where the sizes leave nothing to test."""
        values = self.paired.differences
        fitted = values - self._make_residuals @ values
        found = lack_of_fit(self.paired.sizes, values, fitted, self.degree + 1)
        return None if found.p is None else (found.worst, found.p)

    def _terms(self, log_sizes: Floats) -> Floats:
        # Centred and scaled: the same curve, better conditioned.
        return np.vander((log_sizes - self._center) / self._width, self.degree + 1)

    def _weights(self, sizes: Floats) -> Floats:
        """(sizes, points): the curve at a size is a weighted sum of the points' differences."""
        return self._terms(np.log2(sizes)) @ self._solve

    def _estimate(self, sizes: Floats) -> tuple[Floats, Floats, Floats]:
        """(difference, its variance, degrees of freedom), each (sizes,)."""
        weights = self._weights(sizes)
        difference = weights @ self.paired.differences
        scatter = weights**2 @ self._squares
        # The variance is the quadratic form r'Ar in the residuals r = Me of the errors e, A
        # diagonal. With S the covariance of r its mean is tr(AS) and its variance 2 tr(ASAS).
        diagonal = weights**2 / self._spare
        freedom = np.full(len(sizes), np.inf)
        for covariance in self._residual_covariances:
            trace = diagonal @ np.diag(covariance)
            squares = np.einsum("ki,ij,kj->k", diagonal, covariance**2, diagonal)
            with np.errstate(invalid="ignore"):
                found = np.where(squares > 0, trace**2 / squares, self.freedom)
            freedom = np.minimum(freedom, np.maximum(found, 1.0))
        test = np.einsum("ki,ij,kj->k", weights, self.paired.test_covariance, weights)
        test_freedom = float(max(self.paired.test_examples - 1, 1))
        return difference, scatter + test, _combine((scatter, freedom), (test, test_freedom))


@dataclass(frozen=True)
class LackOfFit:
    """How far the means at each size lie from a fitted line, against the scatter within sizes.

    Attributes:
        worst: the largest distance of a mean.
        lack, pure: sums of squares, of the means' distances and within sizes.
        p: p value of the F test; None where the sizes leave nothing to test.
    """

    worst: float
    lack: float
    pure: float
    p: float | None


def lack_of_fit(
    sizes: Floats, values: Floats, fitted: Floats, terms: int, none: float = 0.0
) -> LackOfFit:
    """Of a line through `values`.

    Args:
        sizes, values, fitted: of each point; equal sizes have equal fitted values.
        terms: of the line.
        none: sums of squares up to this are rounding, and taken for 0.
    """
    levels = np.unique(sizes)
    lack = pure = worst = 0.0
    for level in levels:
        mine = sizes == level
        distance = float(values[mine].mean() - fitted[mine][0])
        worst = max(worst, abs(distance))
        lack += int(mine.sum()) * distance**2
        pure += float(((values[mine] - values[mine].mean()) ** 2).sum())
    lack, pure = (0.0 if squares <= none else squares for squares in (lack, pure))
    spare, within = len(levels) - terms, len(sizes) - len(levels)
    if spare < 1 or within < 1:
        return LackOfFit(worst, lack, pure, None)
    if pure == 0.0:
        return LackOfFit(worst, lack, pure, 1.0 if lack == 0.0 else 0.0)
    ratio = (lack / spare) / (pure / within)
    return LackOfFit(worst, lack, pure, float(special.fdtrc(spare, within, ratio)))


def degree_for(sizes: Sequence[float] | Floats) -> int:
    """Of the polynomial: 2 from eight points and three sizes on, else 1; 0 at one size."""
    levels = len(np.unique(np.asarray(sizes)))
    return min(levels - 1, 2 if len(sizes) >= _BEND_FROM else 1)


def split_covariance(
    differences: ArrayLike, weights: ArrayLike, sources: Sequence[object] | None = None
) -> tuple[Floats, int]:
    """Covariance of the points' mean test differences that is due to the test split's examples.

    A mean over a split is a ratio, the loss of all targets over their number; its error is that of
    the linearised ratio (Cochran 1977, 6.4).

    Args:
        differences: (points, test examples) the difference of each example, nats per target.
        weights: (test examples,) targets of each example.
        sources: where each example comes from; those of one source count as one (a cluster).

    Returns:
        ((points, points) covariance in nats squared, how many independent examples or sources).

    Raises:
        ValueError: there is only one.
    """
    values, weights = np.asarray(differences, float), np.asarray(weights, float)
    means = values @ weights / weights.sum()
    parts = (values - means[:, None]) * weights / weights.sum()
    if sources is not None:
        _, owner = np.unique(np.asarray(sources, dtype=object).astype(str), return_inverse=True)
        grouped = np.zeros((len(values), int(owner.max()) + 1))
        np.add.at(grouped.T, owner, parts.T)
        parts = grouped
    independent = parts.shape[1]
    if independent < 2:
        raise ValueError("one test example, or source of them, says nothing of the others")
    return parts @ parts.T * independent / (independent - 1), independent


def _variance_by_size(sizes: Floats, squares: Floats) -> Floats:
    """(points,) the noise variance at each point's size, drawn towards that of all of them as if
    by `_PRIOR_POINTS` more points: three replicates alone say little."""
    overall, found = squares.mean(), np.empty(len(sizes))
    for size in np.unique(sizes):
        mine = sizes == size
        found[mine] = (squares[mine].sum() + _PRIOR_POINTS * overall) / (mine.sum() + _PRIOR_POINTS)
    return found


def _combine(*parts: tuple[Floats | float, Floats | float]) -> Floats:
    """Degrees of freedom of a sum of independent variances, each with its own: those with which
    the squared half-widths of their `LEVEL` intervals add up (Cochran 1951; Satterthwaite's are
    too many where the variance with the fewest happens to come out small)."""
    total = sum(np.asarray(variance) for variance, _ in parts)
    level = 0.5 + LEVEL / 2
    reach = sum(np.asarray(v) * special.stdtrit(freedom, level) ** 2 for v, freedom in parts)
    fewest = np.minimum.reduce([np.broadcast_to(f, np.shape(total)) for _, f in parts])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, special.stdtridf(level, np.sqrt(reach / total)), fewest)
