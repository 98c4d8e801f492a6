"""The numbers that decide, and the arms that are compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.strategies import STRATEGIES, arm_label

SURE, LEANING = 0.95, 0.80
"""Probabilities from which the decision rule claims, and leans."""
LEVEL = 0.95
"""Of every interval."""
CHEAPER = 0.9
"""Cost ratio up to which an arm that is not worse is recommended for it."""
MAX_CONFIDENCE = 0.99
"""No study of this kind excludes what it did not vary, so more is never claimed."""

FEWEST_SIZES, SMALLEST_SPAN = 4, 8
FEWEST_REPLICATES, FEWEST_PAIRS = 3, 6
REACH = 1.5
"""An asked size may lie outside of the tested ones by this factor."""
MOST_AT_END = 1 / 3
"""Of an arm's winners, in the tenth of the learning rates at one end."""

ENOUGH = 0.80
"""Power that a study should have at 2 rho."""
SPLIT_LIMIT = 0.25
"""In units of rho: the test split's error should not be above."""

TREND_SIZES, TREND_WINNERS = 3, 3
"""Fewest sizes, and winners at the two next to the asked one, for a trend of the winners'
hyperparameters over the dataset size."""
TREND_P = 0.05
"""P value below which such a trend is there, or is no straight line."""


@dataclass(frozen=True)
class Pair:
    """Two arms that are compared, in this order.

    Differences are the reference's loss less the challenger's, so that above 0 favours the
    challenger; ratios are the challenger's over the reference's.
    """

    reference: str
    challenger: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.reference, self.challenger))

    def other(self, arm: str) -> str:
        """The arm that one of them is compared with."""
        return self.reference if arm == self.challenger else self.challenger

    @property
    def labels(self) -> tuple[str, str]:
        """Both as they are written for people."""
        return arm_label(self.reference), arm_label(self.challenger)

    @property
    def difference(self) -> str:
        """What is above 0 where the challenger is better, e.g. ``full minus LIFT``."""
        return " minus ".join(self.labels)

    @property
    def ratio(self) -> str:
        """What is below 1 where the challenger takes less, e.g. ``LIFT / full``."""
        return " / ".join(reversed(self.labels))


def pair_with(arms: Sequence[str], arm: str) -> Pair:
    """The first of `pairs_of` that an arm is in; the default one for an arm of none."""
    known = pairs_of(arms)
    return next((pair for pair in known if arm in pair), known[0])


def pairs_of(arms: Sequence[str]) -> tuple[Pair, ...]:
    """All that a study of these arms can compare, the default one first; of a study of one arm
    that with the first arm it lacks, so that what it is set beside has a name."""
    known = list(arms) if len(arms) > 1 else [*arms, *(a for a in STRATEGIES if a not in arms)][:2]
    ordered = sorted(known, key=list(STRATEGIES).index)
    return tuple(itertools.starmap(Pair, itertools.combinations(ordered, 2)))
