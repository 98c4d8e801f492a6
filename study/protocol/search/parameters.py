"""Searched parameters as the surface sees them: the log learning rate, and the rest in [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Scalar = bool | int | float | str
Floats = NDArray[np.float64]
RATE = "learning_rate"
_DIGITS = 4
"""Of a searched number: the same points on machines whose arithmetic differs in the last bits."""


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter.

    Attributes:
        name: as in the search space.
        kind: of `low` to `high`, both included, ``float`` or ``int``; ``choice`` of `choices`,
            unordered; one choice is a fixed value.
        log: its scale is logarithmic.
        step: of the numbers from `low` on; None: any float, every integer.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None
    choices: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "choice" and not self.choices:
            raise ValueError(f"{self.name} has no choices")
        if self.kind != "choice" and not self.low <= self.high:
            raise ValueError(f"{self.name}: {self.low} is above {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name}: a logarithmic scale begins above 0, not at {self.low}")

    @property
    def searched(self) -> bool:
        return len(self.choices) > 1 if self.kind == "choice" else self.low < self.high

    @property
    def width(self) -> int:
        """Columns of `columns`."""
        return len(self.choices) if self.kind == "choice" else 1

    def columns(self, value: Scalar) -> list[float]:
        """A number as its place in [-1, 1]; a choice one-hot, 1 for it and -1 for the others."""
        if self.kind == "choice":
            return [1.0 if choice == value else -1.0 for choice in self.choices]
        low, high = self._scaled(self.low), self._scaled(self.high)
        return [2.0 * (self._scaled(float(value)) - low) / (high - low) - 1.0]

    def at(self, unit: float) -> Scalar:
        """The value at a place in [0, 1]."""
        unit = min(max(unit, 0.0), 1.0)
        if self.kind == "choice":
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if self.kind == "int" and not self.log:
            step = int(self.step or 1)
            count = int(self.high - self.low) // step + 1
            return int(self.low) + step * min(int(unit * count), count - 1)
        low, high = self._scaled(self.low), self._scaled(self.high)
        scaled = low + unit * (high - low)
        return self.near(math.exp(scaled) if self.log else scaled)

    def near(self, value: float) -> Scalar:
        """The allowed number that is nearest to a value on the parameter's scale."""
        if self.kind == "choice":
            numbers = [choice for choice in self.choices if not isinstance(choice, str)]
            return min(numbers, key=lambda choice: abs(math.log(choice / value)))
        value = min(max(value, self.low), self.high)
        if self.step is not None:
            value = self.low + self.step * round((value - self.low) / self.step)
        if self.kind == "int":
            return round(value)
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclass(frozen=True)
class Space:
    """What an arm's search may choose.

    Attributes:
        parameters: the fixed ones too, `RATE` among them; those that both arms share in the same
            order and before an arm's own, so that both arms' designs agree on them.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        rate = self.rate
        numbers = rate.choices if rate.kind == "choice" else (rate.low,)
        if not all(isinstance(n, int | float) and n > 0 for n in numbers):
            raise ValueError(f"{RATE} must be above 0")

    @cached_property
    def rate(self) -> Parameter:
        """The learning rate's."""
        found = [parameter for parameter in self.parameters if parameter.name == RATE]
        if not found:
            raise ValueError(f"a search needs the parameter {RATE}")
        return found[0]

    @cached_property
    def others(self) -> tuple[Parameter, ...]:
        """Searched ones beside the learning rate."""
        return tuple(p for p in self.parameters if p.searched and p.name != RATE)

    @cached_property
    def fixed(self) -> dict[str, Scalar]:
        """Values that are not searched; perhaps that of the learning rate too."""
        return {p.name: p.at(0.0) for p in self.parameters if not p.searched}

    @cached_property
    def log_range(self) -> tuple[float, float]:
        """Ends of the log learning rate."""
        rate = self.rate
        ends = [float(c) for c in rate.choices] or [rate.low, rate.high]
        return math.log(min(ends)), math.log(max(ends))

    def columns(self, values: Mapping[str, Any]) -> list[float]:
        """Of the searched ones beside the learning rate."""
        return [column for p in self.others for column in p.columns(values[p.name])]

    def rate_near(self, log_rate: float) -> float:
        """The allowed learning rate nearest to exp(`log_rate`)."""
        return float(self.rate.near(math.exp(log_rate)))

    def point(self, units: Sequence[float]) -> dict[str, Scalar]:
        """Values at a place in the unit cube of the searched parameters, in their order."""
        searched = [p for p in self.parameters if p.searched]
        drawn = {p.name: p.at(unit) for p, unit in zip(searched, units, strict=True)}
        return {**self.fixed, **drawn}

    def with_rate(self, log_rate: float, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """`values` at another learning rate."""
        return {**values, RATE: self.rate_near(log_rate)}


@dataclass(frozen=True)
class Trial:
    """A finished search trial.

    Attributes:
        size: training examples.
        values: by parameter, fixed ones may be absent.
        loss: of validation, nats; None: diverged.
        subset: number of the size's data subset, which shifts its losses.
    """

    size: int
    values: Mapping[str, Any]
    loss: float | None
    subset: int = 0

    @property
    def diverged(self) -> bool:
        return self.loss is None or not math.isfinite(self.loss)


def log_rate_of(space: Space, trial: Trial) -> float:
    """Natural logarithm of a trial's learning rate."""
    return math.log(float(trial.values.get(RATE, space.fixed.get(RATE))))
