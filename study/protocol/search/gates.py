"""How far the search can be trusted: what it found, judged before the first round."""

from __future__ import annotations

from enum import StrEnum

from study.protocol.search.records import Chosen

CURVATURE_RATIO = 3.0
"""Of the arms, beyond which one is far harder to tune than the other."""
REGRET_WARNS, REGRET_FAILS = 0.5, 1.0
"""Rho."""


class Grade(StrEnum):
    """Of a gate."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


def bracket_gate(full: Chosen, lift: Chosen) -> Grade:
    """Fails where a choice is not inside the rates tried at the asked size."""
    return Grade.PASS if full.inside and lift.inside else Grade.FAIL


def rate_range_gate(full: Chosen, lift: Chosen) -> Grade:
    """Fails where one arm alone chose from the outer tenth of the range: the other's search had
    what this one lacked."""
    if full.outer_tenth != lift.outer_tenth:
        return Grade.FAIL
    return Grade.WARN if full.outer_tenth else Grade.PASS


def regret_gate(full: Chosen, lift: Chosen) -> Grade:
    """By the larger estimate."""
    regret = max(full.regret, lift.regret)
    if regret > REGRET_FAILS:
        return Grade.FAIL
    return Grade.WARN if regret > REGRET_WARNS else Grade.PASS


def difficulty_gate(full: Chosen, lift: Chosen) -> Grade:
    """Warns where the losses of one arm rise much faster around its choice: such an arm is far
    harder to tune, and its estimated regret does not see all of it."""
    small, large = sorted((full.curvature, lift.curvature))
    return Grade.WARN if large > CURVATURE_RATIO * small else Grade.PASS
