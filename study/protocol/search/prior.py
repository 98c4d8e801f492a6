"""The surface's prior: a polynomial with normal coefficients and a smooth residual.

A Gaussian process with explicit basis functions (Rasmussen and Williams 2006, section 2.7), the
coefficients integrated out. l is log2(n / asked size), u the log learning rate from the middle of
its range, x the other parameters' columns. Responses are compressed losses in rho.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CURVATURE, CURVATURE_SD = 12.0, 20.0
DRIFT_SD, BEND_SD = 6.0, 3.0
"""Of u l, by which the best rate moves with size, and of u^2 l."""
LEVEL_SD = 30.0
"""Of a size's own level; of no consequence as long as it is wide."""
SUBSET_SD = 1.5
"""Of a second data subset of a size."""
OTHER_SQUARE, OTHER_SD = 1.0, 1.0
"""Of each other parameter: its square's mean and sd, as most have their best value inside the
range, and the sd of its slope. Simulated, wider ones miss twice as much."""
SHIFT_SD = 1.0
"""Of another parameter's product with u."""
RATE_REACH, SIZE_REACH, OTHER_REACH = 0.8, 2.0, 3.0
"""Length scales of the residual: e-folds, octaves, units of x."""


@dataclass(frozen=True)
class Hyper:
    """What the marginal likelihood chooses.

    Attributes:
        residual: sd of the smooth residual.
        noise: sd of a trial.
        smallest: how many times larger at the smallest size.
        jump: sd of each size's own slope in u: how far best rates jump from size to size.
    """

    residual: float
    noise: float
    smallest: float
    jump: float


HYPERS = tuple(
    Hyper(*values) for values in product((0.0, 2.0, 5.0), (0.4, 0.75, 1.4), (1.0, 3.0), (3.0, 12.0))
)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the surface is looked at; arrays of one length.

    Attributes:
        octaves: l.
        rates: u.
        others: (places, columns) x.
        size: number of the size, -1 for one without trials.
        subset: number of the (size, subset) beyond a size's first, -1 for a first one.
    """

    octaves: Floats
    rates: Floats
    others: Floats
    size: NDArray[np.int64]
    subset: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rates)


def mean(places: Places) -> Floats:
    """Of the response, a priori."""
    return CURVATURE * places.rates**2 + OTHER_SQUARE * _numbers(places).sum(axis=1)


def polynomial(a: Places, b: Places, half_range: float) -> Floats:
    """(a, b) prior covariance of the polynomial but for the jumps and levels.

    Args:
        half_range: of the log learning rate: how far the best one may lie from the middle.
    """
    u, v = a.rates[:, None], b.rates[None, :]
    both = a.octaves[:, None] * b.octaves[None, :]
    slope_sd = 2.0 * CURVATURE_SD * max(half_range, 0.1)
    rates = u * v * (slope_sd**2 + DRIFT_SD**2 * both)
    bends = (u * v) ** 2 * (CURVATURE_SD**2 + BEND_SD**2 * both)
    linear = a.others @ b.others.T
    squares = _numbers(a) @ _numbers(b).T
    others = OTHER_SD**2 * (linear + squares) + SHIFT_SD**2 * linear * u * v
    return np.asarray(rates + bends + others)


def levels(a: Places, b: Places) -> Floats:
    """Each size's own level, and each further subset's."""
    own = LEVEL_SD**2 * _same(a.size, b.size)
    return np.asarray(own + SUBSET_SD**2 * _same(a.subset, b.subset))


def jumps(a: Places, b: Places) -> Floats:
    """Of unit variance: each size's own slope in u."""
    return a.rates[:, None] * b.rates[None, :] * _same(a.size, b.size)


def residual(a: Places, b: Places) -> Floats:
    """Of unit variance: squared-exponential."""
    distance = ((a.rates[:, None] - b.rates[None, :]) / RATE_REACH) ** 2
    distance += ((a.octaves[:, None] - b.octaves[None, :]) / SIZE_REACH) ** 2
    scaled_a, scaled_b = a.others / OTHER_REACH, b.others / OTHER_REACH
    distance += (scaled_a**2).sum(axis=1)[:, None] + (scaled_b**2).sum(axis=1)[None, :]
    distance -= 2.0 * scaled_a @ scaled_b.T
    return np.asarray(np.exp(-0.5 * distance))


def _numbers(places: Places) -> Floats:
    """Squares of x; 1 throughout, and so of no effect beyond the level, for one-hot columns."""
    return np.asarray(places.others**2)


def _same(a: NDArray[np.int64], b: NDArray[np.int64]) -> Floats:
    return ((a[:, None] == b[None, :]) & (a[:, None] >= 0)).astype(np.float64)
