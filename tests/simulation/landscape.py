"""What a trial's loss is in a simulated world: arms, hyperparameters, noise. All in nats.

Only sums and products of the hyperparameters' logarithms, so that a loss is the same to the last
bit whether it was computed alone or among thousands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RHO = 0.01
ARMS = ("full", "lift")
BASE_LOSS = 3.5
BASE_RETENTION = 3.1
MIDDLE_SIZE = 1000.0

Floats = NDArray[np.float64]
Point = tuple[Any, Any, Any]
"""Hyperparameters as the landscape reads them; floats, or arrays of one shape."""


@dataclass(frozen=True)
class Surface:
    """One arm's loss over its hyperparameters, above its lowest: a bowl whose bottom moves with
    the dataset size.

    Attributes:
        rate: the best learning rate at `MIDDLE_SIZE`.
        drift: change of its logarithm with every doubling of the size.
        curvature: nats per squared e-fold of the learning rate.
        warmup, clipping: the same for the warmup ratio (per 0.05) and the clipping norm.
        speed: how fast a trial's learning curve falls, per trial.
    """

    rate: float
    drift: float
    curvature: float
    warmup: float
    clipping: float
    speed: float

    def excess(self, size: float, point: Point, shift: Any = 0.0) -> Any:
        """Nats above the lowest; of one trial, or of arrays of them.

        Args:
            point: as `as_point` gives.
            shift: by how much this data's best log learning rate differs.
        """
        log_rate, warmup, clipping = point
        away = log_rate - (self._best(size) + shift)
        warmup, clipping = warmup - 1.1, clipping - 0.2
        return (
            self.curvature * (away * away)
            + self.warmup * (warmup * warmup)
            + self.clipping * (clipping * clipping)
        )

    def _best(self, size: float) -> float:
        return math.log(self.rate) + self.drift * math.log2(size / MIDDLE_SIZE)


def as_point(hyperparameters: Mapping[str, Any]) -> Point:
    """(log learning rate, warmup ratio in units of 0.05, log clipping norm)."""
    return (
        math.log(hyperparameters["learning_rate"]),
        hyperparameters["warmup_ratio"] / 0.05,
        math.log(hyperparameters["max_grad_norm"]),
    )


DIFFERENT = {
    "full": Surface(2.9e-5, -0.03, 0.25, 0.0015, 0.0010, 14.0),
    "lift": Surface(3.5e-5, -0.01, 0.18, 0.0008, 0.0006, 8.0),
}
"""The usual surfaces: LIFT likes larger steps, has a flatter bowl and starts more slowly."""
_TWIN = Surface(3.2e-5, 0.0, 0.20, 0.0010, 0.0008, 14.0)
TWINS = {"full": _TWIN, "lift": Surface(3.2e-5, 0.0, 0.20, 0.0010, 0.0008, 8.0)}
"""Equal bowls: whatever sampler and pruner do, they do it to both arms alike, so that the arms'
tuned losses differ by exactly what the scenario says."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations in units of `RHO`.

    Attributes:
        subset: effect of the training subset on one arm; every (size, replicate) has its own.
        shared_subset: the part of that effect that both arms have.
        seed: effect of a run's seed.
        validation: error of a run's validation loss, beside that.
        split: standard error of the difference of the arms' test losses that is due to which
            examples the test split holds.
        smallest: how many times larger subset and seed effects are at the smallest size, falling
            to 1 at four times that size.
        outliers: ``heavy``: seed effects are t-distributed with 3 degrees of freedom; ``spikes``:
            one run in fifty is ten standard deviations worse.
    """

    subset: float = 0.5
    shared_subset: float = 1.0
    seed: float = 0.5
    validation: float = 0.25
    split: float = 0.125
    smallest: float = 1.0
    outliers: Literal["none", "heavy", "spikes"] = "none"

    def scale(self, size: float, smallest_size: float) -> float:
        """How many times larger the noise is at a size."""
        fall = max(0.0, 1.0 - math.log(size / smallest_size, 4))
        return float(self.smallest ** min(fall, 1.0))

    def seeds(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Seed effects in nats, before `scale`."""
        if self.outliers == "heavy":
            effects = random.standard_t(3, shape) / math.sqrt(3)
        else:
            effects = random.standard_normal(shape)
            if self.outliers == "spikes":
                effects = effects + 10.0 * (random.random(shape) < 0.02)
        return effects * (self.seed * RHO)


@dataclass(frozen=True)
class Divergence:
    """How likely a run diverges.

    Attributes:
        edge: learning rate beyond which it does half of `high` of the time.
        high: share far beyond the edge.
        anywhere: share at every learning rate.
    """

    edge: float = 4.6e-5
    high: float = 0.0
    anywhere: float = 0.0

    def probability(self, log_rate: Any) -> Any:
        """Of one trial by its log learning rate, or of an array of them."""
        if not self.high:
            return self.anywhere + 0.0 * log_rate
        beyond = (log_rate - math.log(self.edge)) / 0.02
        return self.anywhere + self.high / (1.0 + np.exp(-beyond))
