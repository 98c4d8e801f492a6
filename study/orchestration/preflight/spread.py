"""How far off a forecast of hours may be.

Two things are not known beforehand: how long a unit of work takes, known from a probe or the
better the more trials have ended, and how each trial that is left scatters around that, which
averages out over many. Both as standard deviations of logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MEANING = "9 of 10 such studies"
"""What the two ends of a range hold."""
_QUANTILE = 1.645
_PROBE_SD = 0.2
"""Of what trials take on average over what the probe's steps say: 40 trials of the demo's model
took 0.89 times that, on two cores that had other work as well."""
_TRIAL_SD = 0.3
"""Of a single trial around the others, until there are trials that tell: of those 40."""
_PRIOR_FREEDOM = 2.0
_DRIFT_SD = 0.05
"""Of what changes meanwhile: other load, other data, nodes that come and go."""


def spread(ratios: Sequence[Sequence[float]], left: int) -> float:
    """The factor, at least 1, by which the rest of a study may take longer or shorter than is
    forecast: in nine of ten studies no more.

    Args:
        ratios: of each kind of trial, what ended ones took over what they were expected to, up to
            a constant; empty where the forecast stands on a probe alone.
        left: trials that are still to run.
    """
    logs = [[math.log(ratio) for ratio in group] for group in ratios if group]
    ended, freedom = sum(map(len, logs)), sum(len(group) - 1 for group in logs)
    squares = sum((x - sum(group) / len(group)) ** 2 for group in logs for x in group)
    trial = (_PRIOR_FREEDOM * _TRIAL_SD**2 + squares) / (_PRIOR_FREEDOM + freedom)
    unit = trial / ended if ended else _PROBE_SD**2
    variance = _DRIFT_SD**2 + unit + trial / max(left, 1)
    return math.exp(_QUANTILE * math.sqrt(variance))
