"""How precisely a design (which sizes, how many replicates at each) can tell D(n), before it runs.

The curve is linear in the replicates' differences: under normal noise its value is independent of
the residuals that its standard error comes from. So a chance is averaged over errors alone, which
the real `Curve` finds in noise drawn with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from study.analysis.curve.fit import Curve, Floats, PairedLosses
from study.analysis.rules import LEVEL

_PATTERNS, _RADII = 24, 12
"""Draws of the residuals' pattern, and quantiles of their common scale."""
_GRID = 33
_REACH = 1.5
"""Sizes beyond the tested ones by at most this factor are looked at."""


@dataclass(frozen=True)
class SplitVariance:
    """Variance of D̂ that is due to the test split's examples.

    Attributes:
        variance: nats squared.
        examples: independent ones behind it.
    """

    variance: float
    examples: int


@dataclass(frozen=True, eq=False)
class Precision:
    """What the curve's error is likely to be at one size, the noise of a point being 1.

    Attributes:
        leverage: variance of D̂ over that of a point.
        squares: (draws,) variances that the curve would find.
        freedom: (draws,) degrees of freedom that it would give them.
    """

    leverage: float
    squares: Floats
    freedom: Floats

    def chance(self, gap: float, level: float, point: float, split: SplitVariance) -> float:
        """Chance of a statement P(D > margin) >= `level`.

        Args:
            gap: true D less the margin, nats.
            level: e.g. .95.
            point: variance of a replicate's mean difference, nats squared.
            split: see `SplitVariance`.
        """
        reach = self._reach(level, point, split)
        spread = np.sqrt(self.leverage * point + split.variance)
        if spread == 0.0:
            return float(gap > 0.0)
        return float(special.ndtr((gap - reach) / spread).mean())

    def half_width(self, point: float, split: SplitVariance) -> float:
        """Expected half-width of the 95 % interval, nats; arguments as in `chance`."""
        return float(self._reach(0.5 + LEVEL / 2, point, split).mean())

    def error(self, point: float, split: SplitVariance) -> float:
        """True standard error of D̂, nats."""
        return float(np.sqrt(self.leverage * point + split.variance))

    def _reach(self, level: float, point: float, split: SplitVariance) -> Floats:
        """(draws,) the t quantile times the standard error; each part with its own quantile, as
        in `Curve` (Cochran 1951)."""
        own = self.squares * point * special.stdtrit(self.freedom, level) ** 2
        common = split.variance * special.stdtrit(max(split.examples - 1, 1), level) ** 2
        return np.sqrt(own + common)


def precision_at(sizes: Sequence[float], size: float) -> Precision | None:
    """Of a curve over replicates at `sizes` (one entry each), read at `size`; None where they are
    too few for a curve, or `size` lies far outside of them."""
    points = tuple(sorted(map(float, sizes)))
    leverage = leverage_at(points, size)
    if leverage is None:
        return None
    patterns = _patterns(points)
    squares = np.outer(patterns.radii, _read(points, patterns.shapes, size)).ravel()
    freedom = np.tile(_read(points, patterns.freedom, size), len(patterns.radii))
    return Precision(leverage, squares, freedom)


def leverage_at(sizes: Sequence[float], size: float) -> float | None:
    """`Precision.leverage` alone, which takes less; None as in `precision_at`."""
    points = tuple(sorted(map(float, sizes)))
    if not points or not points[0] / _REACH <= size <= points[-1] * _REACH:
        return None
    found = _leverages(points)
    return None if found is None else float(_read(points, found[0], size))


def _read(points: tuple[float, ...], values: Floats, size: float) -> Floats:
    """Of values on the grid, those at `size`."""
    grid = np.log(_grid(points))
    place = np.log(float(size))
    right = int(np.clip(np.searchsorted(grid, place), 1, _GRID - 1))
    share = (place - grid[right - 1]) / (grid[right] - grid[right - 1])
    return np.asarray((1 - share) * values[..., right - 1] + share * values[..., right])


def replicated(sizes: Sequence[int], replicates: int) -> tuple[float, ...]:
    """`replicates` points at each size."""
    return tuple(float(size) for size in sorted(sizes) for _ in range(replicates))


def _grid(points: tuple[float, ...]) -> Floats:
    return np.geomspace(points[0] / _REACH, points[-1] * _REACH, _GRID)


@lru_cache(maxsize=2048)
def _leverages(points: tuple[float, ...]) -> tuple[Floats, int] | None:
    """(leverages on the grid, residual degrees of freedom); None: too few points."""
    count = len(points)
    try:
        # The curve is a weighted sum: under a covariance of 1 its variance is their squares' sum.
        curve = Curve(_paired(points, np.zeros(count), np.eye(count)))
    except ValueError:
        return None
    return curve.at(_grid(points)).error ** 2, curve.freedom


@dataclass(frozen=True, eq=False)
class _Patterns:
    """Of one design. `shapes` and `freedom`: (patterns, grid), of variances whose common scale is
    one of `radii`."""

    shapes: Floats
    freedom: Floats
    radii: Floats


@lru_cache(maxsize=512)
def _patterns(points: tuple[float, ...]) -> _Patterns:
    found = _leverages(points)
    assert found is not None  # asked for first
    leverages, spare = found
    count = len(points)
    random = np.random.default_rng(count)
    grid, none = _grid(points), np.zeros((count, count))
    shapes, freedom = np.empty((_PATTERNS, _GRID)), np.empty((_PATTERNS, _GRID))
    for draw in range(_PATTERNS):
        curve = Curve(_paired(points, random.normal(size=count), none))
        found_here = curve.at(grid)
        shapes[draw], freedom[draw] = found_here.error**2 / curve.variance, found_here.freedom
    # HC2 is unbiased under equal noise; so few draws are not, so they are put right.
    shapes *= leverages / shapes.mean(axis=0)
    radii = special.chdtri(spare, (np.arange(_RADII) + 0.5) / _RADII)
    return _Patterns(shapes, freedom, radii / radii.mean())


def _paired(sizes: Sequence[float], differences: Floats, test_covariance: Floats) -> PairedLosses:
    count = len(sizes)
    return PairedLosses(
        sizes=np.asarray(sizes, dtype=float),
        differences=differences,
        pairs=np.ones(count, dtype=np.int64),
        scatter=np.zeros(count),
        test_covariance=test_covariance,
        test_examples=10**9,  # so many that they leave the degrees of freedom alone
    )
