"""What a look decides, in the order in which outcomes are tried."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from study.protocol.rounds.boundary import FIRST_LOOK
from study.protocol.rounds.rules import Floats, Rules

FUTILE = 0.05
"""Chance of an answer by the last round, below which going on is given up."""
FUTILE_FROM = 5
"""Rounds; before it the scatter is hardly known."""
CHEAPER = 0.9
"""An arm is cheaper where the whole interval of its cost ratio is below this."""


class Outcome(StrEnum):
    """How the confirm rounds ended."""

    MEMORY = "memory"
    LIFT_BETTER = "lift_better"
    FULL_BETTER = "full_better"
    NO_DIFFERENCE = "no_difference"
    LIFT_NOT_WORSE = "lift_not_worse"
    FULL_NOT_WORSE = "full_not_worse"
    GAVE_UP = "gave_up"
    TEST_SPLIT = "test_split_limits"
    BUDGET = "budget"
    ROUNDS = "all_rounds"

    @property
    def is_answer(self) -> bool:
        return self in ANSWERS


ANSWERS = (
    Outcome.MEMORY, Outcome.LIFT_BETTER, Outcome.FULL_BETTER, Outcome.NO_DIFFERENCE,
    Outcome.LIFT_NOT_WORSE, Outcome.FULL_NOT_WORSE,
)  # fmt: skip
OUTCOMES = tuple(Outcome)
OPEN = -1
Codes = NDArray[np.int64]


def judge(
    rules: Rules,
    looked: int,
    mean: Floats,
    sd: Floats,
    tau: Floats | float,
    budget_spent: bool = False,
) -> Codes:
    """Places in `OUTCOMES`, or `OPEN`, of sequences that have been looked at so many times.

    An arm that is known to be not worse is what a study says that ends without more, so it comes
    before every reason to end but the claims; only `Rules.may_stop` makes it a reason by itself.

    Args:
        mean, sd: of the differences of each sequence's rounds, arrays of one shape.
        tau: of the mean, see `Rules.half_width`.
        budget_spent: no further round can be paid for.
    """
    mean, sd = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    found = np.full(mean.shape, OPEN)
    if looked < FIRST_LOOK:
        return _set(found, np.full(mean.shape, budget_spent), Outcome.BUDGET)
    width = rules.half_width(looked, sd, tau)
    low, high = mean - width, mean + width
    _set(found, low - rules.regret_full > rules.rho, Outcome.LIFT_BETTER)
    _set(found, high + rules.regret_lift < -rules.rho, Outcome.FULL_BETTER)
    lift, full = low > -rules.rho, high < rules.rho
    _set(found, lift & full, Outcome.NO_DIFFERENCE)
    if "lift" in rules.may_stop:
        _set(found, lift, Outcome.LIFT_NOT_WORSE)
    if "full" in rules.may_stop:
        _set(found, full, Outcome.FULL_NOT_WORSE)
    ends = _ending(rules, looked, mean, sd, tau, budget_spent)
    _set(found, (ends != OPEN) & lift, Outcome.LIFT_NOT_WORSE)
    _set(found, (ends != OPEN) & full, Outcome.FULL_NOT_WORSE)
    return np.where(found == OPEN, ends, found)


def before_rounds(
    rules: Rules, tau: float, fits: Mapping[str, bool], learned: Mapping[str, bool]
) -> Outcome | None:
    """What needs no confirm round.

    Args:
        tau: expected of the test split.
        fits: by arm, whether it fits the memory limit.
        learned: by arm, whether it got below the base model.
    """
    fitting = [arm for arm in ("full", "lift") if fits[arm]]
    if len(fitting) == 1 and learned[fitting[0]]:
        return Outcome.MEMORY
    return Outcome.TEST_SPLIT if rules.split_reach(tau) > rules.rho / 2 else None


def stopping_arms(cost_ratio: tuple[float, float] | None, prefer: str | None) -> tuple[str, ...]:
    """For `Rules.may_stop`.

    Args:
        cost_ratio: ends of the interval of LIFT's cost divided by full's; None: unknown.
        prefer: the arm that was named beforehand, if any.
    """
    found = {prefer} if prefer else set()
    if cost_ratio is not None:
        low, high = cost_ratio
        found |= {"lift"} if high < CHEAPER else {"full"} if low > 1 / CHEAPER else set()
    return tuple(sorted(found))


def _ending(
    rules: Rules,
    looked: int,
    mean: Floats,
    sd: Floats,
    tau: Floats | float,
    budget_spent: bool,
) -> Codes:
    """Why a study ends without a claim, if it does."""
    ends = np.full(mean.shape, OPEN)
    if looked >= FUTILE_FROM:
        # Tried before giving up, which it implies: it says what would help.
        endless = rules.chance(looked, None, mean, sd, tau) < FUTILE
        helps = rules.chance(looked, None, mean, sd, 0.0) >= FUTILE
        _set(ends, endless & helps, Outcome.TEST_SPLIT)
        if looked < rules.end:
            _set(ends, rules.chance(looked, rules.end, mean, sd, tau) < FUTILE, Outcome.GAVE_UP)
    if budget_spent:
        _set(ends, np.full(mean.shape, True), Outcome.BUDGET)
    if looked >= rules.end:
        _set(ends, np.full(mean.shape, True), Outcome.ROUNDS)
    return ends


def _set(found: Codes, where: NDArray[np.bool_], outcome: Outcome) -> Codes:
    found[where & (found == OPEN)] = OUTCOMES.index(outcome)
    return found
