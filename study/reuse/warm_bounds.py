"""Ranges of a search moved by where earlier winners lie; only where a study file asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from study.config.space.domains import OUTER_SHARE, Domain, FloatDomain, IntDomain
from study.config.space.parameters import all_parameters
from study.config.space.read import SearchSpace

MARGIN = 0.25
"""Share of a range that is kept, or added, beyond the outermost earlier winner."""


def moved_space(
    space: SearchSpace,
    winners: Mapping[str, Sequence[Mapping[str, Any]]],
    how: Literal["narrow", "widen"],
) -> tuple[SearchSpace, tuple[str, ...]]:
    """The space with every range moved, and a sentence for each that did.

    A range that both arms share moves by the winners of both, so that it stays the same in both.
    Steps and logarithmic scales are kept, and so are the limits of each parameter.

    Args:
        winners: by arm, hyperparameters of earlier winners.
        how: ``narrow`` cuts a range to what earlier winners span and a quarter of the range on
            either side; ``widen`` puts a quarter of the range beyond a winner that lies in the
            outer tenth, or outside.
    """
    notes: list[str] = []

    def moved(section: str, domains: Mapping[str, Domain]) -> dict[str, Domain]:
        arms = winners if section == "shared" else {section: winners.get(section, ())}
        found = {}
        for name, domain in domains.items():
            # An arm with a domain of its own does not search the shared one.
            own = [
                point[name]
                for arm, points in arms.items()
                for point in points
                if name in point and (section != "shared" or name not in space.arms.get(arm, {}))
            ]
            found[name] = _moved(name, domain, own, how)
            if found[name] != domain and isinstance(domain, FloatDomain | IntDomain):
                low, high = found[name].values()
                notes.append(
                    f"{name if section == 'shared' else f'{section}: {name}'} is searched from "
                    f"{low:g} to {high:g}, where the space has {domain.low:g} to {domain.high:g}: "
                    f"earlier winners lie from {min(own):g} to {max(own):g}."
                )
        return found

    shared = moved("shared", space.shared)
    arms = {arm: moved(arm, domains) for arm, domains in space.arms.items()}
    return replace(space, shared=shared, arms=arms), tuple(notes)


def _moved(name: str, domain: Domain, values: Sequence[Any], how: str) -> Domain:
    if not isinstance(domain, FloatDomain | IntDomain):
        return domain
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    numbers = [n for n in numbers if n > 0 or not domain.log]
    if not numbers:
        return domain
    scale, back = (math.log, math.exp) if domain.log else (float, float)
    low, high = scale(domain.low), scale(domain.high)
    first, last = scale(min(numbers)), scale(max(numbers))
    margin, outer = MARGIN * (high - low), OUTER_SHARE * (high - low)
    if how == "narrow":
        new_low = min(max(low, first - margin), high)
        new_high = max(min(high, last + margin), low)
    else:
        new_low = min(low, first - margin) if first <= low + outer else low
        new_high = max(high, last + margin) if last >= high - outer else high
    # An end that stays is the very number that the file has.
    bounds = (
        domain.low if new_low == low else back(new_low),
        domain.high if new_high == high else back(new_high),
    )
    return _fitted(name, domain, *bounds)


def _fitted(name: str, domain: FloatDomain | IntDomain, low: float, high: float) -> Domain:
    """The domain from `low` to `high` at least: whole steps of its own, within what the parameter
    may be; unchanged where nothing is left between them."""
    step = domain.step
    if step is not None:
        low = domain.low + math.floor((low - domain.low) / step + 1e-9) * step
        high = domain.low + math.ceil((high - domain.low) / step - 1e-9) * step
    parameter = all_parameters()[name]
    low = _rounded(low) if parameter.allows(_rounded(low)) else domain.low
    high = _rounded(high) if parameter.allows(_rounded(high)) else domain.high
    if low >= high:
        return domain
    if isinstance(domain, IntDomain):
        return replace(domain, low=round(low), high=round(high))
    return replace(domain, low=low, high=high)


def _rounded(number: float) -> float:
    """To six digits: for people, and so that every machine has the same."""
    return float(f"{number:.6g}")
