"""What the surface chooses, how sure it is, and where to look next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.protocol.search.parameters import Floats, Scalar, Space
from study.protocol.search.surface import Surface, excess_of

RISE = 1.5
"""Rho that the surface rises from its lowest point to either end of a bracket. At 3 a cliff above
the best rate moves the choice further away from it; see `tests/simulation/README.md`."""
NEAREST, FURTHEST = 0.12, 0.6
"""E-folds between a bracket's middle and its ends."""
OUTER_TENTH = 0.1
_GRID = 121
_FAR = 3.0
"""E-folds within which the rise is looked for."""
_DRAWS = 100
_CANDIDATES = 64
_JITTER = 1e-5
"""Squared rho."""


@dataclass(frozen=True)
class Bracket:
    """Log learning rates tried at the asked size without diverging, and what may lie beyond.

    Attributes:
        low, high: their ends.
        low_open, high_open: whether a rate beyond that end may be tried.
    """

    low: float
    high: float
    low_open: bool
    high_open: bool

    def edge(self, log_rate: float) -> int:
        """-1 or 1 where it lies in the outer tenth of an open end, else 0."""
        margin = OUTER_TENTH * (self.high - self.low)
        if self.low_open and log_rate <= self.low + margin:
            return -1
        return 1 if self.high_open and log_rate >= self.high - margin else 0


@dataclass(frozen=True)
class Rise:
    """How the surface rises from a log learning rate.

    Attributes:
        left, right: e-folds to where it has risen by `RISE`, within `NEAREST` and `FURTHEST`.
        curvature: rho per squared e-fold, of the parabola that rises as far on average.
    """

    left: float
    right: float
    curvature: float


def bracket_of(surface: Surface) -> Bracket:
    """Of the asked size."""
    fine = [
        float(rate)
        for trial, rate in zip(surface.trials, surface.log_rates, strict=True)
        if trial.size == surface.asked and not trial.diverged
    ]
    low_end, high_end = surface.space.log_range
    limit = min(high_end, surface.highest)
    if not fine:  # all of them diverged: only lower ones are left
        lowest = min(r for t, r in zip(surface.trials, surface.log_rates, strict=True)
                     if t.size == surface.asked)  # fmt: skip
        return Bracket(float(lowest), float(lowest), True, False)
    slack = NEAREST / 4
    low, high = min(fine), max(fine)
    return Bracket(low, high, low > low_end + slack, high < limit - slack)


def best_rate(
    surface: Surface, size: int, values: Mapping[str, Any], low: float, high: float
) -> float:
    """Log learning rate of the lowest posterior mean between two."""
    high = max(min(high, surface.highest), low)
    grid = np.linspace(low, high, _GRID)
    mean = surface.means(size, grid, [values])[0]
    return float(grid[int(np.argmin(mean))])


def best_values(surface: Surface) -> dict[str, Scalar]:
    """Of the other parameters: with which the lowest posterior mean at the asked size is lowest,
    of those that were tried and as many again as spread evenly."""
    space = surface.space
    candidates = [_others(space, trial.values) for trial in surface.trials]
    if not space.others:
        return candidates[0]
    for row in spread_units(len(space.others), _CANDIDATES, seed=0):
        at = {p.name: p.at(float(unit)) for p, unit in zip(space.others, row, strict=True)}
        candidates.append({**_others(space, space.fixed), **at})
    low, high = space.log_range
    grid = np.linspace(low, max(min(high, surface.highest), low), 25)
    means = surface.means(surface.asked, grid, candidates)
    return candidates[int(np.argmin(means.min(axis=1)))]


def rise_from(surface: Surface, size: int, log_rate: float, values: Mapping[str, Any]) -> Rise:
    """Of the posterior mean at a size."""
    away = np.linspace(0.0, _FAR, 151)
    rates = np.concatenate([log_rate - away, log_rate + away])
    response = surface.means(size, rates, [values])[0]
    left, right = np.split(excess_of(response - response[0]), 2)
    found = [_first(away, side) for side in (left, right)]
    ends = [min(max(distance, NEAREST), FURTHEST) for distance in found]
    curvature = RISE * (found[0] ** -2 + found[1] ** -2) / 2
    return Rise(ends[0], ends[1], curvature)


def regret_of(
    surface: Surface, log_rate: float, values: Mapping[str, Any], bracket: Bracket, seed: int
) -> float:
    """Rho by which the chosen learning rate is expected to be worse than the best one inside the
    bracket: a mean over draws of the surface."""
    high = max(min(bracket.high, surface.highest), bracket.low)
    rates = np.append(np.linspace(bracket.low, high, 41), log_rate)
    found = surface.predict(surface.asked, rates, values)
    # Neighbours are almost the same, so the covariance is nearly singular.
    root = np.linalg.cholesky(found.covariance + _JITTER * np.eye(len(rates)))
    random = np.random.default_rng(seed).standard_normal((_DRAWS, len(rates)))
    drawn = found.mean + random @ root.T
    # The response is relative to the lowest loss of the size, which the draws need not be.
    excess = excess_of(drawn - found.mean.min())
    return float((excess[:, -1] - excess.min(axis=1)).mean())


def spread_units(columns: int, count: int, seed: int) -> Floats:
    """(count, columns) points of the unit cube, a scrambled Sobol sequence (Owen 1998). The first
    columns are the same however many there are, up to 16."""
    from scipy.stats import qmc  # half a second, so only when points are drawn

    sobol = qmc.Sobol(d=max(columns, 16), scramble=True, rng=np.random.default_rng(seed))
    drawn = sobol.random_base2(max(0, math.ceil(math.log2(count))))
    return np.asarray(drawn[:count, :columns])


def _others(space: Space, values: Mapping[str, Any]) -> dict[str, Scalar]:
    return {p.name: values[p.name] for p in space.parameters if p.name in values}


def _first(away: Floats, excess: Floats) -> float:
    """Where the rise is first reached, by linear interpolation; `_FAR` where it is not."""
    above = np.flatnonzero(excess >= RISE)
    if not len(above):
        return _FAR
    at = int(above[0])
    if at == 0:
        return NEAREST
    share = (RISE - excess[at - 1]) / (excess[at] - excess[at - 1])
    return float(away[at - 1] + share * (away[at] - away[at - 1]))
