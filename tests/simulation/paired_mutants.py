"""Searches and rules that look reasonable and are wrong: each has to miss what is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy import special

from study.protocol.rounds.boundary import ERROR
from study.protocol.rounds.levels import levels_of
from study.protocol.rounds.rules import Rules
from study.protocol.search import steps as search
from study.protocol.search.choice import Bracket
from study.protocol.search.effort import Effort, Step
from study.protocol.search.parameters import Floats, Scalar
from study.protocol.search.records import Chosen, Finished, NextTrials
from tests.simulation.tuned import ASKED, RHO, SPACE


def _as(kind: type[Rules], rules: Rules) -> Rules:
    return kind(**{f.name: getattr(rules, f.name) for f in dataclasses.fields(rules)})


class Satterthwaite(Rules):
    """Both variances are added, and have the degrees of freedom that fit their sum."""

    def half_width(self, looked: int, sd: Floats | float, tau: Floats | float) -> Floats:
        scatter, split = np.asarray(sd) ** 2 / looked, np.asarray(tau) ** 2
        freedom = (looked - 1) * ((scatter + split) / scatter) ** 2
        reach = special.stdtrit(freedom, 1 - self.levels[looked])
        return np.asarray(reach * np.sqrt(scatter + split))


class Always95(Rules):
    """Every look has an interval of 95 %."""

    @cached_property
    def levels(self) -> Floats:
        return np.full(len(super().levels), ERROR / 2)


class NoReserve(Rules):
    """The whole error is for the planned rounds; further ones have the last one's level."""

    @cached_property
    def levels(self) -> Floats:
        planned = levels_of(self.rounds, ERROR / 0.8)[: self.rounds + 1]
        further = len(super().levels) - len(planned)
        return np.concatenate([planned, np.full(further, planned[-1])])


class RaisedRounds(Rules):
    """Whenever the planned rounds are through, twice as many are planned."""

    @cached_property
    def levels(self) -> Floats:
        own = np.array(super().levels)
        planned = self.rounds
        while planned < self.end:
            planned *= 2
            more = levels_of(planned)
            own[planned // 2 + 1 : planned + 1] = more[planned // 2 + 1 : planned + 1]
        return own


def satterthwaite(rules: Rules) -> Rules:
    return _as(Satterthwaite, rules)


def always_95(rules: Rules) -> Rules:
    return _as(Always95, rules)


def no_reserve(rules: Rules) -> Rules:
    return _as(NoReserve, rules)


def raised_rounds(rules: Rules) -> Rules:
    return _as(RaisedRounds, rules)


class _Extrapolating(search._Search):
    """Chooses for the asked size by what the smaller ones say."""

    def next(self) -> NextTrials | Chosen:
        found = super().next()
        if isinstance(found, Chosen) or not found.step.startswith("S4"):
            return found
        low, high = self._space.log_range
        original = search.bracket_of
        search.bracket_of = lambda surface: Bracket(low, high, False, False)
        try:
            return self._choice()
        finally:
            search.bracket_of = original


class _Standing(search._Search):
    """The second bracket is where the first one is, and nothing is tried beyond it."""

    def _points(self, step: Step, before: Sequence[Finished]) -> Sequence[Mapping[str, Scalar]]:
        if step.name != "S4.2":
            return super()._points(step, before)
        return [f.planned.values for f in before if f.planned.step == "S4.1"]

    def _beyond(self, before: Sequence[Finished]) -> Sequence[Mapping[str, Scalar]]:
        return ()


def extrapolating(seed: int, finished: list[Finished], effort: Effort) -> NextTrials | Chosen:
    return _Extrapolating(seed, ASKED, SPACE, RHO, effort, finished).next()


def standing(seed: int, finished: list[Finished], effort: Effort) -> NextTrials | Chosen:
    return _Standing(seed, ASKED, SPACE, RHO, effort, finished).next()


LESS = Effort(first=(3, 0), spread=0, ladder=(), brackets=1)
"""Of an arm that is searched less than the other."""
EQUAL = (Effort(), Effort())
UNEQUAL = (Effort(), LESS)
SHARED_SUBSET = 0.7
"""Of the pair's standard deviation, what a subset does: see `confirm`."""
