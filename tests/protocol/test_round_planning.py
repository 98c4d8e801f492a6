"""What a number of rounds can detect and costs, against the protocol's figures."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from study.protocol.rounds.decision import OPEN, OUTCOMES, Outcome, judge
from study.protocol.rounds.planning import (
    Costs,
    Prospect,
    curve_cost,
    detectable,
    not_worse,
    play,
    prospects,
    rounds_for,
)
from study.protocol.rounds.rules import Rules
from study.protocol.search.effort import FRUGAL, Effort, search_cost

RHO = 0.01
RULES = Rules(rho=RHO, rounds=16, pair_sd=RHO, regret_full=0.05 * RHO, regret_lift=0.05 * RHO)
TAU = RHO / 8
SEARCH = 2 * search_cost(4000, Effort())
SIZES = (250, 500, 1000, 2000, 4000)


def planned(rules: Rules, rounds: int, costs: Costs, difference: float) -> Prospect:
    return prospects(rules, TAU, costs, (rounds,), (difference,), paths=4000)[0]


@pytest.mark.parametrize(
    ("difference", "outcome", "chance", "cost"),
    [
        (2.0, Outcome.LIFT_BETTER, 0.87, 33),
        (-2.0, Outcome.FULL_BETTER, 0.87, 33),
        (4.0, Outcome.LIFT_BETTER, 1.0, 22),
        (0.0, Outcome.NO_DIFFERENCE, 0.82, 37),
    ],
)
def test_sixteen_rounds_do_what_the_protocol_says(
    difference: float, outcome: Outcome, chance: float, cost: float
) -> None:
    [expected] = planned(RULES, 16, Costs(SEARCH), difference).expected
    assert expected.chances[outcome] == pytest.approx(chance, abs=0.03)
    assert expected.cost == pytest.approx(cost, abs=1.5)
    assert expected.cost <= expected.cost_p90
    assert sum(expected.chances.values()) == pytest.approx(1.0)


def test_a_claim_at_rho_is_made_in_one_of_twenty_at_most() -> None:
    for difference, outcome in ((1.0, Outcome.LIFT_BETTER), (-1.0, Outcome.FULL_BETTER)):
        [expected] = planned(RULES, 24, Costs(SEARCH), difference).expected
        assert expected.chances.get(outcome, 0.0) < 0.05


def test_the_default_reaches_its_targets_with_the_curve_in_its_costs() -> None:
    rounds = rounds_for(RHO, RHO)
    costs = Costs(SEARCH, curve_cost(SIZES))
    two, four, zero = (planned(RULES, rounds, costs, d).expected[0] for d in (2.0, 4.0, 0.0))
    assert two.chances[Outcome.LIFT_BETTER] >= 0.85
    assert two.cost <= 40
    assert four.chances[Outcome.LIFT_BETTER] >= 0.99
    assert four.cost <= 28
    assert zero.answered >= 0.90
    assert zero.cost <= 45


def test_the_frugal_variant_costs_two_thirds_and_sees_less() -> None:
    usual = planned(RULES, 16, Costs(SEARCH), 2.0).expected[0]
    rules = replace(RULES, regret_full=0.13 * RHO, regret_lift=0.13 * RHO)
    frugal = planned(rules, 10, Costs(2 * search_cost(4000, FRUGAL)), 2.0).expected[0]
    assert frugal.cost == pytest.approx(22, abs=1.5)
    assert frugal.chances[Outcome.LIFT_BETTER] == pytest.approx(0.62, abs=0.05)
    assert frugal.cost < 0.75 * usual.cost


def test_the_curve_costs_three_rounds_at_the_other_sizes() -> None:
    costs = Costs(SEARCH, curve_cost(SIZES))
    assert curve_cost(SIZES) == pytest.approx(2 * 3750 / 4000)
    assert costs.after(np.array([2.0, 10.0])) == pytest.approx(
        [SEARCH + 4 + 2 * 1.875, SEARCH + 20 + 3 * 1.875]
    )


def test_not_worse_is_the_cheapest_question() -> None:
    noisy = replace(RULES, pair_sd=2 * RHO)
    asked = not_worse(noisy, TAU, Costs(SEARCH))[-1].expected[1]
    [usual] = planned(noisy, 40, Costs(SEARCH), 0.5).expected
    assert asked.chances[Outcome.LIFT_NOT_WORSE] > 0.85
    assert asked.cost < 0.8 * usual.cost


def test_more_rounds_detect_less_and_a_small_test_split_forbids_it() -> None:
    found = prospects(RULES, TAU, Costs(SEARCH))
    assert [p.rounds for p in found] == [8, 16, 24, 40]
    assert [p.detectable for p in found] == sorted((p.detectable for p in found), reverse=True)
    assert not any(p.split_limits for p in found)
    assert all(p.split_limits for p in prospects(RULES, RHO / 2, Costs(SEARCH)))


def test_what_is_detectable_is_detected_about_four_times_in_five() -> None:
    rules = replace(RULES, rounds=16)
    difference = detectable(rules, TAU) / RHO
    [expected] = planned(rules, 16, Costs(SEARCH), difference).expected
    assert 0.78 < expected.chances[Outcome.LIFT_BETTER] < 0.95


def test_a_study_is_looked_at_as_one_by_one() -> None:
    random = np.random.default_rng(5)
    drawn = RHO * (1.5 + random.standard_normal((40, 18)))
    rules = replace(RULES, rounds=18)
    ended, codes = play(rules, drawn, TAU)
    for row, end, code in zip(drawn, ended, codes, strict=True):
        for k in range(3, end + 1):
            mean, sd = np.array([row[:k].mean()]), np.array([row[:k].std(ddof=1)])
            found = int(judge(rules, k, mean, sd, TAU)[0])
            assert (found == OPEN) == (k < end)
        assert found == code
        assert OUTCOMES[code]


def test_rounds_are_planned_from_noise_and_budget() -> None:
    assert rounds_for(RHO, RHO) == 18
    assert rounds_for(2 * RHO, RHO) == 40
    assert rounds_for(RHO, RHO, affordable=10) == 10
    assert rounds_for(RHO, RHO, affordable=1) == 3


def test_the_table_takes_less_than_a_second() -> None:
    took = []
    for _ in range(2):
        began = time.process_time()
        prospects(RULES, TAU, Costs(SEARCH))
        took.append(time.process_time() - began)
    assert min(took) < 1.0
