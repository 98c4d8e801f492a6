"""The protocol in worlds whose truth is known, and mutants of it that have to miss a target.

Few studies and seeds that are fixed; each share may miss its target by what chance does to it. The
long form is `python -m tests.simulation.sequential`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from study.protocol.rounds.rules import Rules
from tests.simulation import paired_mutants as mutants
from tests.simulation.paired import Change, Row, ever_wrong, judged, warned
from tests.simulation.tuned import (
    RHO,
    WORLDS,
    Search,
    Tuned,
    TunedWorld,
    Valley,
    tune,
    usual_search,
)

CHANCE = 3.0
"""Standard errors."""
STUDIES, SEQUENCES = 10, 4000
PATHS = 20_000
LIMIT = 0.05 + CHANCE * float(np.sqrt(0.05 * 0.95 / PATHS))
ERROR_RULES = Rules(rho=RHO, rounds=16, pair_sd=RHO, horizon=48)


@cache
def tuned(name: str, search: Search = usual_search, studies: int = STUDIES) -> tuple[Tuned, ...]:
    return tuple(tune(WORLDS[name], seed, search) for seed in range(studies))


def missed(name: str, studies: Sequence[Tuned]) -> list[Row]:
    return [row for row in judged(WORLDS[name], studies, SEQUENCES) if not row.passes(CHANCE)]


@pytest.mark.parametrize("name", ["usual", "jump"])
def test_claims_are_as_seldom_wrong_as_they_should_be(name: str) -> None:
    assert not missed(name, tuned(name))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", WORLDS)
def test_claims_hold_in_every_world(name: str) -> None:
    assert not missed(name, tuned(name, studies=60))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["unequal"])
def test_unequal_difficulty_is_warned_of(name: str) -> None:
    assert np.mean([warned(study) for study in tuned(name, studies=60)]) >= 0.8


def test_both_ends_hold_at_every_look_far_beyond_the_plan() -> None:
    for pair_sd, split in ((1.0, 0.125), (0.5, 0.5)):
        assert ever_wrong(ERROR_RULES, pair_sd, split, PATHS) <= LIMIT


@pytest.mark.parametrize(
    ("change", "pair_sd", "split"),
    [
        (mutants.always_95, 1.0, 0.125),
        (mutants.no_reserve, 1.0, 0.0),
        (mutants.raised_rounds, 1.0, 0.0),
    ],
)
def test_rules_that_spend_more_error_than_there_is_are_found_out(
    change: Change, pair_sd: float, split: float
) -> None:
    assert ever_wrong(change(ERROR_RULES), pair_sd, split, PATHS) > LIMIT


def test_satterthwaites_degrees_of_freedom_are_found_out() -> None:
    # Where the split's error is a fifth of the scatter; by the planned rounds .04 may be spent.
    limit = 0.04 + CHANCE * float(np.sqrt(0.04 * 0.96 / PATHS))
    planned = Rules(rho=RHO, rounds=8, pair_sd=RHO)
    wrong = [
        ever_wrong(rules, 1.0, 0.2, PATHS) for rules in (planned, mutants.satterthwaite(planned))
    ]
    assert wrong[0] <= limit < wrong[1]


def test_rounds_that_reuse_a_subset_are_found_out() -> None:
    wrong = ever_wrong(ERROR_RULES, 1.0, 0.0, PATHS, reused=mutants.SHARED_SUBSET)
    assert wrong > LIMIT


@pytest.mark.parametrize("search", [mutants.extrapolating, mutants.standing])
def test_a_search_that_does_not_follow_the_asked_size_is_found_out(search: Search) -> None:
    found = missed_at_best(tuned("jump", search))
    assert found > 0.2 > missed_at_best(tuned("jump"))


def missed_at_best(studies: Sequence[Tuned]) -> float:
    """Claims that are false of the best configurations, at D = rho."""
    rows = judged(WORLDS["jump"], studies, SEQUENCES)
    return next(row.value for row in rows if row.name.endswith("at the best"))


def test_an_arm_that_is_searched_less_is_found_out() -> None:
    valley = Valley(other=4.0)
    world = TunedWorld("twins", valley, valley)
    equal, less = (
        float(np.mean([tune(world, seed, efforts=efforts).offset for seed in range(16)]))
        for efforts in (mutants.EQUAL, mutants.UNEQUAL)
    )
    assert abs(equal) < 0.25 < abs(less)
