"""Domains of a search space: what one hyperparameter may be.

Each maps to an Optuna distribution and, for designs drawn in the plan, from a point of the
unit interval to a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scalar = bool | int | float | str
OUTER_SHARE = 0.1
"""Share of a range, at each end and on its own scale, that counts as its bound."""


@dataclass(frozen=True)
class FloatDomain:
    """Floats in [low, high]: uniform, log-uniform, or ``low, low + step, ..., high``."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def from_unit(self, u: float) -> float:
        """The value at `u` in [0, 1): every value, or every step, is equally likely."""
        if self.step is not None:
            count = round((self.high - self.low) / self.step) + 1
            # Decimal, so that the third step of 0.1 is 0.3 and not 0.30000000000000004.
            value = Decimal(str(self.low)) + _cell(u, count) * Decimal(str(self.step))
            return min(float(value), self.high)
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value_at_u = math.exp(low + u * (high - low))
        else:
            value_at_u = self.low + u * (self.high - self.low)
        return min(max(value_at_u, self.low), self.high)

    def values(self) -> tuple[float, ...]:
        """The bounds."""
        return (self.low, self.high)

    def to_yaml(self) -> dict[str, Any]:
        log = {"log": True} if self.log else {}
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, **log, **step}


@dataclass(frozen=True)
class IntDomain:
    """Integers ``low, low + step, ..., high``; with `log` the small ones are likelier."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def from_unit(self, u: float) -> int:
        """The value at `u` in [0, 1): each equally likely or, with `log`, log-uniform."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + u * (high - low)))
            return min(max(value, self.low), self.high)
        return self.low + self.step * _cell(u, (self.high - self.low) // self.step + 1)

    def values(self) -> tuple[int, ...]:
        """The bounds."""
        return (self.low, self.high)

    def to_yaml(self) -> dict[str, Any]:
        log = {"log": True} if self.log else {}
        step = {} if self.step == 1 else {"step": self.step}
        return {"low": self.low, "high": self.high, "type": "int", **log, **step}


@dataclass(frozen=True)
class CategoricalDomain:
    """One of `choices`, unordered."""

    choices: tuple[Scalar, ...]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)

    def from_unit(self, u: float) -> Scalar:
        """The choice at `u` in [0, 1): each equally likely."""
        return self.choices[_cell(u, len(self.choices))]

    def values(self) -> Iterable[Scalar]:
        """All choices."""
        return self.choices

    def to_yaml(self) -> dict[str, Any]:
        return {"choices": list(self.choices)}


@dataclass(frozen=True)
class FixedDomain:
    """Always `value`. A categorical of one choice to Optuna, so that it is on record."""

    value: Scalar

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution((self.value,))

    def from_unit(self, u: float) -> Scalar:
        """The value, whatever `u`."""
        return self.value

    def values(self) -> Iterable[Scalar]:
        """The one value."""
        return (self.value,)

    def to_yaml(self) -> Scalar:
        return self.value


Domain = FloatDomain | IntDomain | CategoricalDomain | FixedDomain


def _cell(u: float, count: int) -> int:
    """Which of `count` equal cells of [0, 1) holds `u`."""
    return min(int(u * count), count - 1)
