"""Each outcome, their order, and the sequence of looks that every reader sees."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from study.protocol.rounds.decision import (
    OPEN,
    OUTCOMES,
    Outcome,
    before_rounds,
    judge,
    stopping_arms,
)
from study.protocol.rounds.levels import levels_of
from study.protocol.rounds.looks import Look, Round, decided, looks_of
from study.protocol.rounds.rules import Rules, with_difficulty

RHO = 0.01
USUAL = Rules(rho=RHO, rounds=16, pair_sd=RHO)


def outcome(
    rules: Rules, k: int, mean: float, sd: float, tau: float = 0.0, spent: bool = False
) -> Outcome | None:
    """All but `rules` and `k` in rho."""
    code = int(judge(rules, k, np.array([mean * RHO]), np.array([sd * RHO]), tau * RHO, spent)[0])
    return None if code == OPEN else OUTCOMES[code]


def rules(**changes: Any) -> Rules:
    return dataclasses.replace(USUAL, **changes)


CASES = [
    ("LIFT is better beyond rho", USUAL, 10, 3.0, 1.0, 0.0, Outcome.LIFT_BETTER),
    ("full is better beyond rho", USUAL, 10, -3.0, 1.0, 0.0, Outcome.FULL_BETTER),
    ("full's regret takes the claim for LIFT away",
     rules(regret_full=1.5 * RHO), 10, 3.0, 1.0, 0.0, None),
    ("LIFT's regret does not", rules(regret_lift=1.5 * RHO), 10, 3.0, 1.0, 0.0,
     Outcome.LIFT_BETTER),
    ("LIFT's regret takes the claim for full away",
     rules(regret_lift=1.5 * RHO), 10, -3.0, 1.0, 0.0, None),
    ("inside rho on both sides", USUAL, 14, 0.0, 0.8, 0.0, Outcome.NO_DIFFERENCE),
    ("not worse does not stop by itself", USUAL, 6, 1.2, 1.0, 0.0, None),
    ("not worse stops where it was asked for",
     rules(may_stop=("lift",)), 6, 1.2, 1.0, 0.0, Outcome.LIFT_NOT_WORSE),
    ("and not for the other arm", rules(may_stop=("full",)), 6, 1.2, 1.0, 0.0, None),
    ("full not worse", rules(may_stop=("full",)), 6, -1.2, 1.0, 0.0, Outcome.FULL_NOT_WORSE),
    ("better comes before not worse",
     rules(may_stop=("lift",)), 10, 3.0, 1.0, 0.0, Outcome.LIFT_BETTER),
    ("no chance left", USUAL, 15, 0.9, 5.0, 0.0, Outcome.GAVE_UP),
    ("not given up before the fifth", USUAL, 4, 1.0, 9.0, 0.0, None),
    ("the test split forbids it", USUAL, 8, 0.9, 0.3, 1.2, Outcome.TEST_SPLIT),
    ("all rounds", USUAL, 16, 1.0, 4.5, 0.0, Outcome.ROUNDS),
    ("all rounds, and something is known", USUAL, 16, 1.4, 1.5, 0.0, Outcome.LIFT_NOT_WORSE),
    ("further rounds were asked for", rules(horizon=40), 16, 1.4, 1.5, 0.0, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "k", "mean", "sd", "tau", "wanted"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_look_ends_as_the_protocol_says(
    given: Rules, k: int, mean: float, sd: float, tau: float, wanted: Outcome | None
) -> None:
    assert outcome(given, k, mean, sd, tau) is wanted


def test_a_spent_budget_ends_a_study_that_would_go_on() -> None:
    assert outcome(USUAL, 6, 1.2, 3.0) is None
    assert outcome(USUAL, 6, 1.2, 3.0, spent=True) is Outcome.BUDGET
    assert outcome(USUAL, 2, 1.2, 3.0, spent=True) is Outcome.BUDGET
    assert outcome(USUAL, 6, 1.2, 1.0, spent=True) is Outcome.LIFT_NOT_WORSE


def test_half_the_interval_adds_both_quantiles_errors() -> None:
    level = levels_of(16)[7]
    t, z = stats.t.ppf(1 - level, 6), stats.norm.ppf(1 - level)
    wanted = math.sqrt((t * 0.012) ** 2 / 7 + (z * 0.003) ** 2)
    assert USUAL.half_width(7, 0.012, 0.003) == pytest.approx(wanted)
    assert USUAL.split_share(7, 0.012, 0.003) == pytest.approx((z * 0.003) ** 2 / wanted**2)


@pytest.mark.parametrize("mean", [-2.5, -0.4, 0.0, 0.7, 1.9])
@pytest.mark.parametrize("k", [3, 8, 15])
def test_the_chance_of_an_answer_is_the_protocols_formula(mean: float, k: int) -> None:
    given = rules(regret_full=0.2 * RHO, regret_lift=0.1 * RHO)
    m, s, tau = mean * RHO, 0.9 * RHO, 0.2 * RHO
    drawn = math.sqrt((2 * RHO**2 + (k - 1) * s**2) / (k + 1))
    q = drawn * math.sqrt(1 / k - 1 / 16)
    w = float(given.half_width(16, drawn, tau))
    cdf = stats.t(k + 1).cdf
    wanted = cdf((m - RHO - 0.2 * RHO - w) / q) + cdf((-RHO - 0.1 * RHO - w - m) / q)
    wanted += max(0.0, cdf((RHO - w - m) / q) - cdf((w - RHO - m) / q))
    found = given.chance(k, 16, np.array(m), np.array(s), tau)
    assert float(found) == pytest.approx(wanted, abs=1e-9)


def test_an_arm_that_may_stop_makes_an_answer_likelier() -> None:
    at = (8, 16, np.array(0.5 * RHO), np.array(RHO), 0.0)
    alone, asked = USUAL.chance(*at), rules(may_stop=("lift",)).chance(*at)
    assert float(asked) > float(alone) + 0.2
    assert float(rules(may_stop=("full", "lift")).chance(*at)) <= 1.0


def test_what_needs_no_round() -> None:
    both = {"full": True, "lift": True}
    only = {"full": False, "lift": True}
    assert before_rounds(USUAL, 0.0, only, both) is Outcome.MEMORY
    assert before_rounds(USUAL, 0.0, only, {"full": True, "lift": False}) is None
    assert before_rounds(USUAL, 0.2 * RHO, both, both) is None
    assert before_rounds(USUAL, 0.3 * RHO, both, both) is Outcome.TEST_SPLIT


def test_which_arms_may_stop_a_study_by_being_not_worse() -> None:
    assert stopping_arms(None, None) == ()
    assert stopping_arms((0.8, 0.95), None) == ()
    assert stopping_arms((0.7, 0.89), None) == ("lift",)
    assert stopping_arms((1.2, 1.4), None) == ("full",)
    assert stopping_arms((0.7, 0.8), "full") == ("full", "lift")


def rounds_of(differences: list[float], tau: float = 0.001) -> list[Round]:
    return [Round(i, 2.0 + d * RHO, 2.0, tau) for i, d in enumerate(differences)]


SEEN = [2.6, 3.4, 1.9, 3.1, 2.2, 2.9, 3.3, 2.4]


def test_the_looks_are_the_same_in_whatever_order_rounds_end() -> None:
    found = rounds_of(SEEN)
    random = np.random.default_rng(0)
    looks = looks_of(USUAL, found)
    assert [look.rounds for look in looks] == [3, 4, 5, 6, 7, 8]
    for _ in range(20):
        mixed = [found[i] for i in random.permutation(len(found))]
        assert looks_of(USUAL, mixed) == looks
        until = int(random.integers(0, len(found)))
        assert looks_of(USUAL, found[:until]) == looks[: max(0, until - 2)]


def test_a_look_waits_for_the_rounds_before_it() -> None:
    found = rounds_of(SEEN)
    assert looks_of(USUAL, found[:4] + found[5:]) == looks_of(USUAL, found[:4])


def test_a_round_that_diverged_twice_is_passed_over() -> None:
    found = rounds_of(SEEN)
    found[2] = Round(2, None, 2.0, 0.001)
    looks = looks_of(USUAL, found)
    assert [(look.round, look.rounds) for look in looks] == [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7)]
    assert looks[-1].mean == pytest.approx(RHO * np.mean(SEEN[:2] + SEEN[3:]))


def test_the_first_look_that_decides_is_the_one() -> None:
    looks = looks_of(USUAL, rounds_of(SEEN))
    end = decided(looks)
    assert end is not None
    assert end.outcome is Outcome.LIFT_BETTER
    assert all(look.outcome is None for look in looks if look.rounds < end.rounds)
    assert end.low > RHO
    assert end.holds == (Outcome.LIFT_BETTER, Outcome.LIFT_NOT_WORSE)
    assert end.further_rounds == 0.0


def test_going_on_past_the_plan_changes_no_interval() -> None:
    random = np.random.default_rng(4)
    found = rounds_of([1.2 + float(x) for x in 1.5 * random.standard_normal(24)])
    planned = looks_of(USUAL, found[:16])
    further = looks_of(rules(horizon=24), found)
    for early, late in zip(planned, further, strict=False):
        assert (early.level, early.low, early.high) == (late.level, late.low, late.high)
    assert further[-1].rounds == 24
    assert further[-1].outcome is not None


def test_an_open_look_says_what_to_expect() -> None:
    look = looks_of(USUAL, rounds_of([1.0, 2.9, 0.8, 2.2, 1.5]))[-1]
    assert look.outcome is None
    assert 0.05 < look.chance < 1.0
    assert 1.0 <= look.further_rounds <= 11.0
    assert 0.0 < look.split_share < 0.5
    assert look.half_width == pytest.approx(look.high - look.mean)


def test_a_look_goes_through_json_unchanged() -> None:
    for look in looks_of(USUAL, rounds_of(SEEN)):
        assert Look.from_dict(json.loads(json.dumps(look.to_dict()))) == look


def test_rules_that_make_no_sense_are_refused() -> None:
    for changes in ({"rho": 0.0}, {"may_stop": ("both",)}, {"horizon": 2}, {"horizon": 97}):
        with pytest.raises(ValueError):
            rules(**changes)


def test_difficulty_adds_to_the_regret() -> None:
    assert with_difficulty(0.001, RHO, harder=False) == 0.001
    assert with_difficulty(0.001, RHO, harder=True) == pytest.approx(0.003)
