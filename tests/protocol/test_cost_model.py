"""Prices of steps and equal-cost step counts, against numbers worked out by hand."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.protocol.cost_model import (
    PhasePrice,
    RunShape,
    Tariff,
    abstract_layout,
    cache_pays,
    equal_cost_steps,
    measured_tariff,
    predicted_tariff,
    price_phases,
    run_seconds,
)
from study.strategies.full import FullStrategy
from study.strategies.lift import LiftStrategy
from tests.helpers.costs import step_costs

EIGHT = abstract_layout(8)
PAIRS = LiftStrategy(group_size=2)
# The examples fill 8 steps; 5 evaluations.
RUN = RunShape(first_pass=8, evaluations=5)
# In exact agreement with the cost model at 0.1 s per forward unit.
PROBE = step_costs(0.3, 0.1875, 0.15, full_evaluation=2.0, lift_evaluation=1.0, phase_switch=0.5)


def full_seconds(tariff: Tariff, steps: int, run: RunShape) -> float:
    return run_seconds(price_phases(FullStrategy(), EIGHT, steps), tariff, run)


def units(strategy: LiftStrategy, tied: bool = False) -> list[tuple[float, float]]:
    """Per phase: recomputed and cached."""
    prices = price_phases(strategy, abstract_layout(8, tied), 100)
    return [(p.recomputed, p.cached) for p in prices]


def test_a_full_step_takes_three_units() -> None:
    (price,) = price_phases(FullStrategy(), EIGHT, 10)
    assert price == PhasePrice(10, 3.0, 0.0)


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16])
def test_equal_groups_cost_what_the_formulas_say(groups: int) -> None:
    prices = price_phases(LiftStrategy(group_size=16 // groups), abstract_layout(16), 160)
    mean = statistics.fmean(p.recomputed for p in prices)
    cached = statistics.fmean(p.cached for p in prices)
    assert mean == pytest.approx(3 * (groups + 1) / (2 * groups))
    assert cached == pytest.approx((groups + 2) / groups)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (PAIRS, [(1.5, 0.75), (1.75, 1.25), (2.0, 1.75), (2.25, 2.25)]),
        (LiftStrategy(group_size=4, sweeps=2), [(2.0, 1.5), (2.5, 2.5), (2.0, 2.0), (2.5, 2.5)]),
        (LiftStrategy(group_size=2, cumulative=True),
         [(1.5, 0.75), (2.0, 1.5), (2.5, 2.25), (3.0, 3.0)]),
        (LiftStrategy(group_size=4, order="bottom-up"), [(2.5, 2.5), (2.0, 2.0)]),
        (LiftStrategy(groups=[2, 6]), [(1.5, 0.75), (2.75, 2.75)]),
        (LiftStrategy(group_size=4, always_active=["last_2_blocks"]), [(2.0, 1.5), (2.75, 2.75)]),
        (LiftStrategy(group_size=4, always_active=["head"]), [(2.0, 1.5), (2.5, 2.5)]),
    ],
)  # fmt: skip
def test_each_structure_has_its_price(
    strategy: LiftStrategy, expected: list[tuple[float, float]]
) -> None:
    assert units(strategy) == expected


def test_a_tied_head_that_is_always_active_costs_the_whole_way_back() -> None:
    strategy = LiftStrategy(group_size=4, always_active=["head"])
    assert units(strategy, tied=True) == [(2.5, 2.5), (2.5, 2.5)]


def test_a_cold_run_pays_for_its_first_pass_and_reads_afterwards() -> None:
    prices = price_phases(PAIRS, EIGHT, 40)
    run = RunShape(first_pass=15, evaluations=5)
    misses, hits = 10 * 1.5 + 5 * 1.75, 5 * 1.25 + 10 * 1.75 + 10 * 2.25
    assert run_seconds(prices, predicted_tariff(True), run) == pytest.approx(misses + hits)
    recomputed = 10 * (1.5 + 1.75 + 2.0 + 2.25)
    assert run_seconds(prices, predicted_tariff(False), run) == pytest.approx(recomputed)
    tariff = Tariff(1.0, 1.0, evaluation=2.0, phase_switch=0.5)
    assert run_seconds(prices, tariff, run) == pytest.approx(misses + hits + 5 * 2 + 4 * 0.5)
    assert full_seconds(tariff, 40, run) == pytest.approx(40 * 3 + 5 * 2 + 0.5)


FILLS = step_costs(
    0.3, 0.1875, 0.15, full_evaluation=2.0, lift_evaluation=1.0, phase_switch=0.5,
    lift_fill=0.3, lift_evaluation_fill=4.0,
)  # fmt: skip


def test_a_cold_run_pays_for_filling_steps_and_the_first_evaluation() -> None:
    # Per phase: prefix 6, 4, 2 and 0 eighths; read 0.075, 0.125, 0.175, 0.225 s.
    prices = price_phases(PAIRS, EIGHT, 40)
    run = RunShape(first_pass=15, evaluations=5)
    tariff = measured_tariff(FILLS, "lift", price_phases(PAIRS, EIGHT, 4))
    misses = 10 * (0.075 + 0.75 * 0.3) + 5 * (0.125 + 0.5 * 0.3)
    hits = 5 * 0.125 + 10 * 0.175 + 10 * 0.225
    # The first of five evaluations comes after step 8, in the first phase.
    evaluations = 5 * 1.0 + 0.75 * 4.0
    cost = misses + hits + evaluations + 4 * 0.5
    assert run_seconds(prices, tariff, run) == pytest.approx(cost)
    late = RunShape(first_pass=15, evaluations=2)  # after step 20: second phase
    cost = misses + hits + 2 * 1.0 + 0.5 * 4.0 + 4 * 0.5
    assert run_seconds(prices, tariff, late) == pytest.approx(cost)


def test_a_run_that_finds_everything_kept_pays_for_no_filling() -> None:
    prices = price_phases(PAIRS, EIGHT, 40)
    probed = price_phases(PAIRS, EIGHT, 4)
    warm = RunShape(first_pass=0, evaluations=5)
    filling, free = (measured_tariff(probe, "lift", probed) for probe in (FILLS, PROBE))
    assert run_seconds(prices, filling, warm) == run_seconds(prices, free, warm)


def test_a_cache_pays_where_reading_saves_more_than_filling_costs() -> None:
    runs = [(price_phases(PAIRS, EIGHT, 40), RunShape(first_pass=15, evaluations=5))]
    probed = price_phases(PAIRS, EIGHT, 4)
    # An evaluation costs a second less, a step 0.05 s on average; the first trial pays for filling.
    tariff = measured_tariff(FILLS, "lift", probed)
    kept = run_seconds(*runs[0][:1], tariff, runs[0][1])
    computed = run_seconds(*runs[0][:1], tariff.without_cache, runs[0][1])
    assert computed == pytest.approx(40 * 0.1875 + 5 * 2.0 + 4 * 0.5)
    assert cache_pays(runs, tariff, 1) == (kept < computed)
    assert cache_pays(runs, tariff, 8)
    # One H200, a model of 0.95 B parameters: reading takes longer than computing.
    fast = step_costs(
        0.193, 0.098, 0.111, 0.02, 0.02, 0.06, lift_fill=0.3, lift_evaluation_fill=0.1
    )
    assert not any(
        cache_pays(runs, measured_tariff(fast, "lift", probed), trials) for trials in (1, 100)
    )


def test_filling_costs_at_least_what_computing_does() -> None:
    prices = price_phases(PAIRS, EIGHT, 4)
    cheap = measured_tariff(step_costs(0.3, 0.1875, 0.15, lift_fill=0.01), "lift", prices)
    assert [cheap.miss(p) for p in prices] == pytest.approx([0.15, 0.175, 0.2, 0.225])
    unknown = measured_tariff(step_costs(0.3, 0.1875, 0.15), "lift", prices)
    assert [unknown.miss(p) for p in prices] == pytest.approx([0.15, 0.175, 0.2, 0.225])


def test_equal_cost_steps_are_fewer_where_filling_costs_more() -> None:
    probed = price_phases(PAIRS, EIGHT, 4)
    dear, free = (measured_tariff(probe, "lift", probed) for probe in (FILLS, PROBE))
    # 8 misses cost 0.15 s more each, the first evaluation 3 s: 4.2 s, at 0.15 s a step.
    fewer = equal_cost_steps(PAIRS, 8, False, 0, dear, 46.5, RUN)
    assert equal_cost_steps(PAIRS, 8, False, 0, free, 46.5, RUN) - fewer == pytest.approx(28, abs=3)


def test_a_run_shorter_than_its_evaluations_has_one_per_step() -> None:
    tariff = Tariff(1.0, 0.0, evaluation=10.0)
    run = RunShape(first_pass=3, evaluations=5)
    assert full_seconds(tariff, 3, run) == 3 * 3 + 3 * 10
    assert run_seconds(price_phases(LiftStrategy(group_size=8), EIGHT, 2), tariff, run) == 26.0


def test_the_probes_seconds_come_back_for_the_structure_that_it_timed() -> None:
    probe = step_costs(0.3, 0.2, 0.19)
    prices = price_phases(PAIRS, EIGHT, 4)
    tariff = measured_tariff(probe, "lift", prices)
    assert statistics.fmean(p.recomputed * tariff.unit for p in prices) == pytest.approx(0.2)
    assert statistics.fmean(tariff.hit(p) for p in prices) == pytest.approx(0.19)


def test_half_the_predicted_saving_is_half_the_saving_of_every_phase() -> None:
    # Mean prefix 3/8: all blocks read save (0.1875 - 0.16875) / 0.375 = 0.05 s.
    prices = price_phases(PAIRS, EIGHT, 4)
    tariff = measured_tariff(step_costs(0.3, 0.1875, 0.16875), "lift", prices)
    assert tariff.saved == pytest.approx(0.05)
    assert [tariff.hit(p) for p in prices] == pytest.approx([0.1125, 0.15, 0.1875, 0.225])


def test_reading_never_saves_more_than_the_forward_pass_nor_costs_more_than_computing() -> None:
    prices = price_phases(PAIRS, EIGHT, 4)
    fast = measured_tariff(step_costs(0.3, 0.1875, 0.01), "lift", prices)
    assert fast.hit(prices[0]) == pytest.approx(0.05)  # backward: half a unit
    slow = measured_tariff(step_costs(0.3, 0.1875, 0.5), "lift", prices)
    assert slow.saved == 0.0


def test_without_a_cache_every_step_is_computed() -> None:
    prices = price_phases(PAIRS, EIGHT, 4)
    tariff = measured_tariff(step_costs(0.3, 0.1875, None), "lift", prices)
    assert [tariff.hit(p) for p in prices] == pytest.approx([0.15, 0.175, 0.2, 0.225])


def test_a_probe_of_a_structure_without_prefix_leaves_the_saving_to_the_model() -> None:
    bottom_up = price_phases(LiftStrategy(group_size=2, order="bottom-up"), EIGHT, 4)
    tariff = measured_tariff(step_costs(0.3, 0.1875, 0.1875), "lift", bottom_up)
    assert tariff.saved == pytest.approx(tariff.unit) == pytest.approx(0.1)


def test_equal_cost_steps_solve_the_hand_computed_equation() -> None:
    # n steps a phase, 8 of them misses: 8*1.5 + (n-8)*.75 + n*(1.25+1.75+2.25) = 6 + 6n = 360.
    assert equal_cost_steps(PAIRS, 8, False, 0, predicted_tariff(True), 360.0, RUN) == 4 * 59
    # Recomputed: n * 7.5 = 360.
    assert equal_cost_steps(PAIRS, 8, False, 0, predicted_tariff(False), 360.0, RUN) == 4 * 48


def test_equal_cost_steps_count_evaluations_and_phase_switches() -> None:
    tariff = measured_tariff(PROBE, "lift", price_phases(PAIRS, EIGHT, 4))
    full = measured_tariff(PROBE, "full", price_phases(FullStrategy(), EIGHT, 1))
    assert full_seconds(full, 120, RUN) == 46.5
    # Full: 36 + 10 + 0.5 = 46.5 s. LIFT at 259 steps (65, 65, 65, 64): 39.375 + 5 + 2 = 46.375;
    # one more costs 0.225: 260 is nearer.
    assert equal_cost_steps(PAIRS, 8, False, 0, tariff, 46.5, RUN) == 260


def test_every_phase_keeps_a_step_where_that_costs_more_than_full() -> None:
    run = RunShape(first_pass=1, evaluations=1)
    strategy = LiftStrategy(group_size=1, sweeps=2)
    assert equal_cost_steps(strategy, 8, False, 0, predicted_tariff(False), 3.0, run) == 16


def test_one_group_gets_full_steps() -> None:
    whole = LiftStrategy(group_size=8)
    for cached in (False, True):
        assert equal_cost_steps(whole, 8, False, 0, predicted_tariff(cached), 360.0, RUN) == 120


STRUCTURES = st.builds(
    LiftStrategy,
    group_size=st.integers(1, 9),
    order=st.sampled_from(["top-down", "bottom-up", "random"]),
    sweeps=st.integers(1, 3),
    cumulative=st.booleans(),
    always_active=st.sampled_from([(), ("head",), ("last_2_blocks", "final_norm")]),
    phase_steps=st.sampled_from(["even", "proportional"]),
)


@given(STRUCTURES, st.integers(100, 400), st.integers(1, 300), st.integers(0, 9), st.booleans())
def test_a_cold_run_of_any_structure_costs_what_full_does_within_a_step(
    strategy: LiftStrategy, full_steps: int, first_pass: int, seed: int, tied: bool
) -> None:
    run = RunShape(first_pass, 5)
    layout, tariff = abstract_layout(8, tied), predicted_tariff(True)
    steps = equal_cost_steps(strategy, 8, tied, seed, tariff, 3.0 * full_steps, run)
    cost = run_seconds(price_phases(strategy, layout, steps, seed), tariff, run)
    # No step costs more than full's three units; a proportional split may move a few.
    assert abs(cost - 3.0 * full_steps) <= 3.0
