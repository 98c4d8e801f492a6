"""Loss over hyperparameters and dataset size, fitted to the trials of one arm's search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from study.protocol.search import prior
from study.protocol.search.parameters import Floats, Space, Trial, log_rate_of
from study.protocol.search.prior import HYPERS, Hyper, Places

SOFT = 8.0
"""Rho: losses further above the lowest than this count by their logarithm."""
DIVERGED = 60.0
"""Rho above the lowest."""
SHAPE = 0.15
"""Of a response, what is added to its trial's noise: far from the lowest point the surface has
another shape than the polynomial. Simulated: `tests/simulation/README.md`."""
OUTLIER = 3.3
"""Standard deviations of the leave-one-out residual."""
_OUTLIER_NOISE = 20.0
_MOST_OUTLIERS = 1 / 6
_BEYOND = 0.08
"""Log learning rates below the lowest diverged one where choices end."""
_JITTER = 1e-6


@dataclass(frozen=True)
class Posterior:
    """At places of one size.

    Attributes:
        mean: (places,) response.
        covariance: (places, places).
    """

    mean: Floats
    covariance: Floats


class Surface:
    """The fit to one arm's finished trials.

    Attributes:
        asked: the size at which l is 0.
        hyper: what the marginal likelihood chose.
        outliers: places in `trials` that hardly count.
        noise: sd of one run at the asked size, rho, over all hyperparameters by their likelihood.
    """

    def __init__(self, space: Space, asked: int, trials: Sequence[Trial], rho: float) -> None:
        """
        Args:
            trials: at least one that did not diverge.
            rho: the difference that matters, nats.
        """
        self.space, self.asked, self.trials = space, asked, tuple(trials)
        low, high = space.log_range
        self.middle, self._half_range = (low + high) / 2, (high - low) / 2
        self._sizes = sorted({trial.size for trial in trials})
        subsets = sorted({(t.size, t.subset) for t in trials if t.subset})
        self._subsets = {key: place for place, key in enumerate(subsets)}
        self.log_rates = np.array([log_rate_of(space, trial) for trial in trials])
        self._places = self._at(
            [trial.size for trial in trials],
            self.log_rates,
            np.array([space.columns(trial.values) for trial in trials]),
            [trial.subset for trial in trials],
        )
        self.response = _responses(self.trials, rho)
        self._fit()

    def means(self, size: int, log_rates: Floats, values: Sequence[Mapping[str, Any]]) -> Floats:
        """(values, log_rates) posterior mean of the response, for each of the other parameters'
        values."""
        columns = np.array([self.space.columns(one) for one in values])
        places = self._at_size(size, np.tile(log_rates, len(values)), columns)
        across = self._covariance(places, self._places, self.hyper)
        found = prior.mean(places) + across @ self._weights
        return np.asarray(found.reshape(len(values), -1))

    def predict(self, size: int, log_rates: Floats, values: Mapping[str, Any]) -> Posterior:
        """Of the response at learning rates, the other parameters having these values."""
        columns = np.array([self.space.columns(values)])
        places = self._at_size(size, np.asarray(log_rates), columns)
        across = self._covariance(places, self._places, self.hyper)
        half = np.linalg.solve(self._root, across.T)
        own = self._covariance(places, places, self.hyper)
        return Posterior(prior.mean(places) + across @ self._weights, own - half.T @ half)

    @cached_property
    def highest(self) -> float:
        """Log learning rate above which nothing is chosen: just below the lowest that diverged,
        unless two runs as high went well."""
        found = self.space.log_range[1]
        fine = np.array([not trial.diverged for trial in self.trials])
        for trial, rate in zip(self.trials, self.log_rates, strict=True):
            if trial.diverged and (fine & (self.log_rates >= rate - 1e-9)).sum() < 2:
                found = min(found, float(rate) - _BEYOND)
        return found

    def _at_size(self, size: int, log_rates: Floats, columns: Floats) -> Places:
        """Each row of columns at as many rates as there are for it."""
        count = len(log_rates)
        others = np.repeat(columns, count // len(columns), axis=0)
        return self._at([size] * count, log_rates, others, [0] * count)

    def _at(
        self, sizes: Sequence[int], log_rates: Floats, others: Floats, subsets: Sequence[int]
    ) -> Places:
        numbers = {size: place for place, size in enumerate(self._sizes)}
        return Places(
            octaves=np.log2(np.array(sizes) / self.asked),
            rates=log_rates - self.middle,
            others=others.reshape(len(sizes), -1),
            size=np.array([numbers.get(size, -1) for size in sizes]),
            subset=np.array(
                [self._subsets.get(key, -1) for key in zip(sizes, subsets, strict=True)]
            ),
        )

    def _covariance(self, a: Places, b: Places, hyper: Hyper) -> Floats:
        fixed = prior.polynomial(a, b, self._half_range) + prior.levels(a, b)
        return np.asarray(
            fixed + hyper.jump**2 * prior.jumps(a, b) + hyper.residual**2 * prior.residual(a, b)
        )

    def _fit(self) -> None:
        """Choose the hyperparameters, mark outliers one by one, keep what predictions need."""
        places, count = self._places, len(self.trials)
        residuals = self.response - prior.mean(places)
        fixed = prior.polynomial(places, places, self._half_range) + prior.levels(places, places)
        jumps, smooth = prior.jumps(places, places), prior.residual(places, places)
        smallest = places.size == 0
        stacked = np.stack([fixed + h.jump**2 * jumps + h.residual**2 * smooth for h in HYPERS])
        sds = np.array([[h.noise] * count for h in HYPERS])
        if len(self._sizes) > 1:
            sds[:, smallest] *= np.array([[h.smallest] for h in HYPERS])
        outliers: list[int] = []
        while True:
            noise = sds.copy()
            noise[:, outliers] *= _OUTLIER_NOISE
            noise = np.hypot(noise, SHAPE * np.maximum(self.response, 0.0))
            covariance = stacked + (noise**2 + _JITTER)[:, :, None] * np.eye(count)
            roots = np.linalg.cholesky(covariance)
            stack = np.broadcast_to(residuals[:, None], (len(HYPERS), count, 1))
            white = np.linalg.solve(roots, stack)
            logs = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
            likelihood = -0.5 * (white[:, :, 0] ** 2).sum(axis=1) - logs
            best = int(np.argmax(likelihood))
            inverse = np.linalg.inv(covariance[best])
            weights = inverse @ residuals
            # Rasmussen and Williams, equations 5.10 to 5.12.
            left_out = weights / np.sqrt(np.diag(inverse))
            left_out[outliers] = -math.inf
            worst = int(np.argmax(left_out))
            if left_out[worst] <= OUTLIER or len(outliers) + 1 > _MOST_OUTLIERS * count:
                break
            outliers.append(worst)
        self.hyper, self.outliers = HYPERS[best], tuple(sorted(outliers))
        self._root, self._weights = roots[best], weights
        shares = np.exp(likelihood - likelihood[best])
        squares = np.array([h.noise**2 for h in HYPERS])
        self.noise = math.sqrt(float(shares @ squares / shares.sum()))


def excess_of(response: Floats) -> Floats:
    """Rho above the lowest loss of a size, from the response."""
    return np.asarray(SOFT * np.expm1(np.asarray(response) / SOFT))


def _responses(trials: Sequence[Trial], rho: float) -> Floats:
    """Losses above the lowest of their size, in rho, the large ones compressed."""
    lowest: dict[int, float] = {}
    for trial in trials:
        if not trial.diverged:
            loss = float(trial.loss or 0.0)
            lowest[trial.size] = min(lowest.get(trial.size, math.inf), loss)
    if not lowest:
        raise ValueError("every trial diverged")
    excess = np.array(
        [DIVERGED if t.diverged else (float(t.loss or 0.0) - lowest[t.size]) / rho for t in trials]
    )
    return np.asarray(SOFT * np.log1p(excess / SOFT))
