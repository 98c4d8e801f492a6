"""Where in a search's range a learning rate lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from study.config.load import StudyConfig
from study.config.space.domains import OUTER_SHARE, FloatDomain

NAME = "learning_rate"


@dataclass(frozen=True)
class RateRange:
    """An arm's searched learning rates.

    Attributes:
        low, high: ends of the range.
        low_end, high_end: inner ends of its outer tenths on the log scale.
    """

    low: float
    high: float
    low_end: float
    high_end: float

    def at_ends(self, rates: Sequence[float]) -> tuple[int, int]:
        """How many lie in the lowest and in the highest tenth."""
        return sum(r <= self.low_end for r in rates), sum(r >= self.high_end for r in rates)


def rate_range(config: StudyConfig, arm: str) -> RateRange | None:
    """None where an arm does not search more than one learning rate."""
    domain = config.space().for_arm(arm).get(NAME)
    if not isinstance(domain, FloatDomain) or not 0 < domain.low < domain.high:
        return None
    width = math.exp(OUTER_SHARE * math.log(domain.high / domain.low))
    return RateRange(domain.low, domain.high, domain.low * width, domain.high / width)
