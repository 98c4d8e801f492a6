"""A configuration between two tested dataset sizes, where the winners say that one may be.

The optimum of a hyperparameter may move with the dataset size. That it does, and how, is read off
the winners of all replicates at all sizes, on the scale on which the hyperparameter is searched,
as a straight line over log2 of the size. Both winners next to the asked size must have the same
structure, each of their sizes `TREND_WINNERS` winners with it, and there must be a third size, so
that a test can reject the straight line (lack of fit, an F test against the scatter within sizes).
Only what moves with the size is interpolated: a slope that differs from 0 at `TREND_P`, divided by
the number of hyperparameters that are asked (Bonferroni). The line's value is kept between those of
the two winners, so that nothing is proposed that lies beyond what won on either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from scipy import special  # not scipy.stats, which takes two to three times as long to import

from study.analysis import ReplicateSummary, StudySummary
from study.analysis.curve.fit import lack_of_fit
from study.analysis.rules import TREND_P, TREND_SIZES, TREND_WINNERS
from study.config.space.domains import Domain, FloatDomain, IntDomain
from study.config.space.parameters import SHARED_PARAMETERS

_ROUNDING = 1e-9
_GRADUAL_OF_LIFT = ("group_lr_decay", "rewarmup_ratio")
"""Parameters of LIFT that are no part of its structure."""


@dataclass(frozen=True)
class Interpolation:
    """Between the winners of two neighbouring sizes.

    Attributes:
        hyperparameters: of a run at the asked size.
        shown: those of them that are interpolated.
        main_is_lower: the others are the lower size's winner's, else the upper size's.
        support: what the trend rests on, for people.
    """

    hyperparameters: dict[str, Any]
    shown: dict[str, float | int]
    main_is_lower: bool
    support: str


@dataclass(frozen=True)
class Trend:
    """A hyperparameter of the winners over the dataset size, on its search scale.

    Attributes:
        slope_p: two-sided p value of the slope.
        bend_p: p value of the lack of fit of the straight line; None where nothing is left to
            test it with.
        center, intercept, slope: ``intercept + slope * (log2 n - center)``.
    """

    slope_p: float
    bend_p: float | None
    center: float
    intercept: float
    slope: float

    def at(self, size: float) -> float:
        return self.intercept + self.slope * (math.log2(size) - self.center)


def interpolated(
    summary: StudySummary, arm: str, asked: int, low: ReplicateSummary, high: ReplicateSummary
) -> Interpolation | str:
    """The configuration at a size between two tested ones, or why there is none, one sentence.

    Args:
        low, high: the replicates whose winners are chosen at the sizes next to `asked`.
    """
    for end in (low, high):
        if end.winner is None:
            return f"the search at {end.size:,} has not ended."
    assert low.winner is not None and high.winner is not None
    below, above = low.winner.spec.hyperparameters, high.winner.spec.hyperparameters
    domains = summary.config.space().for_arm(arm)
    gradual = _gradual(domains)
    for name in (n for n in domains if n not in gradual):
        if below.get(name) != above.get(name):
            return (
                f"its winners differ in {name} ({below.get(name)} at {low.size:,}, "
                f"{above.get(name)} at {high.size:,})."
            )
    winners = _winners(summary, arm, {n: below.get(n) for n in domains if n not in gradual})
    counts = {size: len(values) for size, values in winners.items()}
    if min(counts.get(end.size, 0) for end in (low, high)) < TREND_WINNERS:
        return (
            f"it takes {TREND_WINNERS} replicate winners of the same structure at {low.size:,} "
            f"and at {high.size:,}; there are {counts.get(low.size, 0)} and "
            f"{counts.get(high.size, 0)}."
        )
    if len(counts) < TREND_SIZES:
        return f"it takes winners at {TREND_SIZES} sizes to see a trend; there are {len(counts)}."
    trends = {name: _trend_of(name, d, winners) for name, d in gradual.items()}
    bent = [n for n, t in trends.items() if t.bend_p is not None and t.bend_p < TREND_P]
    if bent:
        return f"no straight line fits the winners' {' and '.join(bent)} over the sizes."
    moving = [n for n, t in trends.items() if t.slope_p < TREND_P / len(trends)]
    if not moving:
        return "no hyperparameter of the winners moves with the dataset size beyond their scatter."
    main_is_lower = _supports_better(low, high, asked)
    main = below if main_is_lower else above
    values = {n: _between(gradual[n], trends[n].at(asked), below[n], above[n]) for n in moving}
    shown = {name: value for name, value in values.items() if value != main[name]}
    if not shown:
        return f"the winners' trend of {' and '.join(moving)} ends at the value of that winner."
    support = "; ".join(
        [
            f"{sum(counts.values())} winners at {len(counts)} sizes",
            *(f"p of {name} {_p_value(trends[name].slope_p)}" for name in shown),
        ]
    )
    return Interpolation({**main, **shown}, shown, main_is_lower, support)


def trend(sizes: Sequence[float], values: Sequence[float]) -> Trend:
    """Least squares over log2 of the size.

    Args:
        sizes, values: of each winner, at three sizes or more.
    """
    log = np.log2(np.asarray(sizes, dtype=np.float64))
    y = np.asarray(values, dtype=np.float64)
    center, count = float(log.mean()), len(y)
    x = log - center
    spread = float(np.ptp(y))
    if spread <= _ROUNDING * float(np.abs(y).max()):  # one value throughout
        return Trend(1.0, None, center, float(y.mean()), 0.0)
    slope = float(x @ y / (x @ x))
    intercept = float(y.mean())
    # What rounding leaves of no scatter at all is none.
    none = (_ROUNDING * spread) ** 2 * count
    bend = lack_of_fit(log, y, intercept + slope * x, 2, none)
    error = math.sqrt((bend.pure + bend.lack) / (count - 2) / float(x @ x))
    t = abs(slope) / error if error else math.inf
    return Trend(2.0 * float(special.stdtr(count - 2, -t)), bend.p, center, intercept, slope)


def _gradual(domains: Mapping[str, Domain]) -> dict[str, FloatDomain | IntDomain]:
    """Those of which a value between two others means something in between."""
    return {
        name: domain
        for name, domain in domains.items()
        if isinstance(domain, FloatDomain | IntDomain)
        and domain.low < domain.high
        and (name in SHARED_PARAMETERS or name in _GRADUAL_OF_LIFT)
    }


def _winners(
    summary: StudySummary, arm: str, structure: Mapping[str, Any]
) -> dict[int, list[Mapping[str, Any]]]:
    """By size, the hyperparameters of the replicates' winners that have this structure."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for size in summary.sizes:
        for replicate in summary.cell(arm, size).replicates:
            if replicate.winner is None:
                continue
            chosen = replicate.winner.spec.hyperparameters
            if all(chosen.get(name) == value for name, value in structure.items()):
                found.setdefault(size, []).append(chosen)
    return found


def _trend_of(
    name: str, domain: FloatDomain | IntDomain, winners: dict[int, list[Mapping[str, Any]]]
) -> Trend:
    points = [
        (n, _scaled(domain, chosen[name])) for n, found in winners.items() for chosen in found
    ]
    return trend([n for n, _ in points], [value for _, value in points])


def _scaled(domain: FloatDomain | IntDomain, value: float) -> float:
    return math.log(value) if domain.log else float(value)


def _between(
    domain: FloatDomain | IntDomain, scaled: float, one: float, other: float
) -> float | int:
    """The value at a point of the search scale, on the domain's grid, between two values."""
    ends = sorted((_scaled(domain, one), _scaled(domain, other)))
    inside = min(max(scaled, ends[0]), ends[1])
    value = math.exp(inside) if domain.log else inside
    if isinstance(domain, IntDomain):
        value = domain.low + domain.step * round((value - domain.low) / domain.step)
        return min(max(int(value), domain.low), domain.high)
    if domain.step is not None:
        # Decimal, so that the third step of 0.1 is 0.3 and not 0.30000000000000004.
        count = round((value - domain.low) / domain.step)
        value = float(Decimal(str(domain.low)) + count * Decimal(str(domain.step)))
    else:
        value = min(max(float(f"{value:.4g}"), min(one, other)), max(one, other))
    return min(max(value, domain.low), domain.high)


def _supports_better(low: ReplicateSummary, high: ReplicateSummary, asked: int) -> bool:
    """Whether the lower size's winner stands on more: confirm runs, then nearness by ratio."""
    runs = len(low.validation_losses), len(high.validation_losses)
    if runs[0] != runs[1]:
        return runs[0] > runs[1]
    return asked / low.size <= high.size / asked


def _p_value(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"
