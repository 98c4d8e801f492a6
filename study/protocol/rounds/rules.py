"""What is fixed before the first confirm round, and the interval and chances that follow from it.

A round's difference is the test loss of full less that of LIFT, so above 0 favours LIFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from study.protocol.rounds.boundary import ERROR, FIRST_LOOK
from study.protocol.rounds.levels import last_look, levels_of

Floats = NDArray[np.float64]
PRIOR_FREEDOM = 2.0
"""What the assumed scatter counts for beside that of the rounds, in degrees of freedom; only where
the future is guessed, never in an interval."""
DIFFICULTY_REGRET = 0.2
"""Rho that is added to both arms' regret where one is far harder to tune than the other: what such
a search misses without seeing it."""


@dataclass(frozen=True)
class Rules:
    """All differences in nats.

    Attributes:
        rho: the difference that matters.
        rounds: N, planned before the first round from what the search saw, never changed later.
        pair_sd: standard deviation of a round's difference, as assumed beforehand.
        regret_full, regret_lift: what the configurations that were found may still be worse than
            the best ones; see `with_difficulty`.
        may_stop: arms, ``full`` or ``lift``, whose being not worse ends the study: those that are
            surely 10 % cheaper, alone fit the memory, or were preferred beforehand.
        horizon: the last round that will be run; None: `rounds`. Later ones keep the error.
        error: of one end of the interval at all looks.
    """

    rho: float
    rounds: int
    pair_sd: float
    regret_full: float = 0.0
    regret_lift: float = 0.0
    may_stop: tuple[str, ...] = ()
    horizon: int | None = None
    error: float = ERROR

    def __post_init__(self) -> None:
        if self.rho <= 0.0:
            raise ValueError(f"rho must be above 0: {self.rho}")
        if unknown := {*self.may_stop} - {"full", "lift"}:
            raise ValueError(f"not an arm: {', '.join(sorted(unknown))}")
        if not FIRST_LOOK <= self.end <= last_look(self.rounds):
            most = last_look(self.rounds)
            raise ValueError(f"end after {FIRST_LOOK} to {most} rounds, not {self.end}")

    @property
    def end(self) -> int:
        """The last round that will be run."""
        return self.rounds if self.horizon is None else self.horizon

    @cached_property
    def levels(self) -> Floats:
        """By the number of rounds; see `levels_of`."""
        return levels_of(self.rounds, self.error)

    @cached_property
    def _quantiles(self) -> tuple[Floats, Floats]:
        from scipy import special

        looks = np.arange(len(self.levels))
        t = special.stdtrit(np.maximum(looks - 1, 1), 1 - self.levels)
        return t, special.ndtri(1 - self.levels)

    def half_width(self, looked: int, sd: Floats | float, tau: Floats | float) -> Floats:
        """Of the interval after a round. Two errors of known and of estimated variance are put
        together as Cochran (1964) does; Satterthwaite's degrees of freedom cover too little.

        Args:
            sd: of the rounds' differences.
            tau: standard error of their mean that is due to which test examples there are.
        """
        t, z = self._quantiles
        return np.sqrt(
            (t[looked] * np.asarray(sd)) ** 2 / looked + (z[looked] * np.asarray(tau)) ** 2
        )

    def split_share(self, looked: int, sd: float, tau: float) -> float:
        """Of the squared half-width, what more test examples and not more rounds would reduce."""
        split = (float(self._quantiles[1][looked]) * tau) ** 2
        width = float(self.half_width(looked, sd, tau)) ** 2
        return split / width if width > 0.0 else 0.0

    def split_reach(self, tau: Floats | float) -> Floats:
        """The half-width that the test split alone leaves after all planned rounds."""
        return np.asarray(self._quantiles[1][self.rounds] * np.asarray(tau))

    def chance(
        self, looked: int, by: int | None, mean: Floats, sd: Floats, tau: Floats | float
    ) -> Floats:
        """Predictive chance that the look after round `by` ends the study with an answer.

        Student's with `looked` + 1 degrees of freedom, the scatter drawn towards what was assumed.

        Args:
            by: later than `looked`; None: infinitely many rounds, at the level of the planned
                last one.
        """
        from scipy import special

        freedom = looked - 1 + PRIOR_FREEDOM
        variance = (PRIOR_FREEDOM * self.pair_sd**2 + (looked - 1) * np.asarray(sd) ** 2) / freedom
        if by is None:
            width, left = self.split_reach(tau), 1.0 / looked
        else:
            width = self.half_width(by, np.sqrt(variance), tau)
            left = 1.0 / looked - 1.0 / by
        q = np.maximum(np.sqrt(variance * left), 1e-12 * self.rho)

        def below(value: Floats) -> Floats:
            return np.asarray(special.stdtr(freedom, (value - mean) / q))

        # From where full is better, through where nothing is claimed, to where LIFT is better.
        worst, best = -self.rho - self.regret_lift - width, self.rho + self.regret_full + width
        low = -self.rho + width  # LIFT is not worse above it
        high = self.rho - width  # full is not worse below it
        if "full" in self.may_stop:
            worst = np.maximum(worst, high)
        if "lift" in self.may_stop:
            best = np.minimum(best, low)
        between = np.maximum(below(np.minimum(high, best)) - below(np.maximum(low, worst)), 0.0)
        outside = np.minimum(below(worst) + 1.0 - below(best), 1.0)
        return np.minimum(outside + np.where(best > worst, between, 0.0), 1.0)


def with_difficulty(regret: float, rho: float, harder: bool) -> float:
    """The regret that claims are held against, nats.

    Args:
        regret: as the surface has it.
        harder: whether the difficulty gate warns.
    """
    return regret + (DIFFICULTY_REGRET * rho if harder else 0.0)
