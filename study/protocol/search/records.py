"""Trials of a search as they are planned and as they end, and what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.protocol.search.parameters import Scalar, Trial

FIRST_FRESH = 2
"""Number of the first data subset of a size that no search trial has; confirm rounds start here."""


@dataclass(frozen=True)
class Planned:
    """A search trial.

    Attributes:
        step: e.g. ``S3.1``; that of a diverged bracket run's repetition ends in ``r``.
        index: 0-based in its step.
        subset: number of the size's data subset: 0, and 1 for the second bracket at the asked
            size. Confirm rounds take those from `FIRST_FRESH` on.
        seed: of the run; equal in both arms.
    """

    step: str
    index: int
    size: int
    values: Mapping[str, Scalar]
    subset: int
    seed: int


@dataclass(frozen=True)
class Finished:
    """A trial as it was planned, with its validation loss in nats; None: diverged."""

    planned: Planned
    loss: float | None

    @property
    def trial(self) -> Trial:
        """What the surface needs of it."""
        planned = self.planned
        return Trial(planned.size, planned.values, self.loss, planned.subset)


@dataclass(frozen=True)
class NextTrials:
    """Trials that may run at once; those of the step that have ended are left out."""

    step: str
    trials: tuple[Planned, ...]


@dataclass(frozen=True)
class Chosen:
    """A search's end.

    Attributes:
        values: the configuration at the asked size.
        tried: lowest and highest learning rate at the asked size that did not diverge.
        inside: the choice is inside these, or at the end of what may be tried.
        outer_tenth: it lies in the outer tenth of the range.
        regret: rho, expected along the learning rate.
        curvature: rho per squared e-fold around the choice.
        noise: sd of one run, rho.
        sizes: learning rate at each size that was searched.
    """

    values: Mapping[str, Scalar]
    tried: tuple[float, float]
    inside: bool
    outer_tenth: bool
    regret: float
    curvature: float
    noise: float
    sizes: Mapping[int, float]
