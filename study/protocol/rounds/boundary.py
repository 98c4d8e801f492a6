"""The level of each look, so that one end of the interval holds at all of them.

The t statistic T_k of k normal differences of mean 0 is a Markov chain. With S_k their sum, Q_k
that of their squares and r_k = S_k / sqrt(Q_k), r_{k+1} = r_k cos(a) + sin(a), where
tan(a) = x_{k+1} / sqrt(Q_k); sqrt(k) tan(a) has Student's distribution with k degrees of freedom,
and does not depend on T_1 ... T_k (Basu 1955: these are free of the scale, Q_k is complete and
sufficient for it). So the chance of first crossing at each look is a recursion of one-dimensional
integrals, as that of Armitage, McPherson and Rowe (1969) for known variance, and needs no Monte
Carlo. The error is spent as Lan and DeMets (1983) do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FIRST_LOOK = 3
ERROR = 0.05
"""Of one end of the interval, over all looks."""
RESERVE = 0.2
"""Share of the error that is kept for looks beyond the planned number of rounds."""
_POWER = 1.5
_CELLS = 200
_FAR = 6.0
"""Below minus this value of T no finer distinction is made; nothing crosses from there soon."""
_ANGLES = 4001

Floats = NDArray[np.float64]


def error_spent(looked: int, rounds: int, error: float = ERROR) -> float:
    """Of one end, up to and with the look after round `looked`, where `rounds` were planned."""
    if looked < FIRST_LOOK:
        return 0.0
    if looked <= rounds:
        return float((1 - RESERVE) * error * (looked / rounds) ** _POWER)
    return error * (1 - RESERVE * rounds / looked)


def boundary_levels(rounds: int, looks: int, error: float = ERROR) -> Floats:
    """One-sided levels of the looks after rounds `FIRST_LOOK`, ..., `looks`.

    Args:
        rounds: planned, at least `FIRST_LOOK`.
        error: of one end, over all looks however many.
    """
    from scipy import special

    levels = []
    spent = error_spent(FIRST_LOOK, rounds, error)
    end = float(special.stdtrit(FIRST_LOOK - 1, 1 - spent))
    levels.append(spent)
    edges = _edges(FIRST_LOOK, end)
    masses = np.diff(special.stdtr(FIRST_LOOK - 1, edges))
    for k in range(FIRST_LOOK, looks):
        step = _Step(k, edges)
        now = error_spent(k + 1, rounds, error)
        end = step.crossed_with(masses, now - spent)
        levels.append(float(special.stdtr(k, -end)))
        edges = _edges(k + 1, end)
        masses = np.diff(masses @ step.below(edges))
        spent = now
    return np.array(levels)


def _edges(k: int, end: float) -> Floats:
    """Ends of the cells that the values of T_k below `end` are put into."""
    scale = math.sqrt(k - 1)
    first, last = -math.atan(max(_FAR, end) / scale), math.atan(end / scale)
    # Finer towards the end, from where the next look is crossed: levels within 0.4 %.
    share = 1.0 - np.linspace(1.0, 0.0, _CELLS + 1) ** 2
    edges = scale * np.tan(first + (last - first) * share)
    edges[0], edges[-1] = -np.inf, end
    return edges


class _Step:
    """From T_k, known by its cell, to T_{k+1}."""

    def __init__(self, k: int, edges: Floats) -> None:
        from scipy import special

        self._k = k
        angles = np.arctan(edges / math.sqrt(k - 1))
        middle = math.sqrt(k) * np.sin((angles[1:] + angles[:-1]) / 2)
        self._reach = np.hypot(1.0, middle)[:, None]
        self._towards = np.arctan2(1.0, middle)[:, None]
        self._angles = np.linspace(-np.pi / 2, np.pi / 2, _ANGLES)
        self._shares = special.stdtr(k, math.sqrt(k) * np.tan(self._angles))
        self._shares[0], self._shares[-1] = 0.0, 1.0

    def below(self, values: Floats) -> Floats:
        """(cells, values): P(T_{k+1} <= value | cell of T_k)."""
        k = self._k
        tangent = np.arctan(np.asarray(values) / math.sqrt(k))
        ratio = math.sqrt(k + 1) * np.sin(tangent) / self._reach
        # r cos(a) + sin(a) = reach cos(a - towards) is above the value where a is this near.
        near = np.arccos(np.clip(ratio, -1.0, 1.0))
        above = self._up_to(self._towards + near) - self._up_to(self._towards - near)
        again = self._up_to(self._towards + near - 2 * np.pi)
        return np.asarray(1.0 - above - again)

    def crossed_with(self, masses: Floats, chance: float) -> float:
        """The value that T_{k+1} exceeds with this chance."""
        low, high = -_FAR, 1e4
        for _ in range(60):
            middle = (low + high) / 2 if high < 20 else math.sqrt(max(low, 1.0) * high)
            beyond = float(masses @ (1.0 - self.below(np.array([middle]))[:, 0]))
            low, high = (middle, high) if beyond > chance else (low, middle)
        return (low + high) / 2

    def _up_to(self, angle: Floats) -> Floats:
        return np.interp(angle, self._angles, self._shares)
