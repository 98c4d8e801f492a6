"""Costs against values computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from study.analysis.cells.costs import (
    cell_cost,
    cold_device_seconds_of,
    device_seconds_of,
    spent_device_seconds_of,
    updates_per_parameter,
)
from study.protocol.records import PhaseSummary, PrefixCacheUse, TrialRecord, TrialState
from tests.helpers.results import PARAMETERS, make_trial


def test_runs_cut_short_enter_the_total_and_not_the_cost_of_a_run() -> None:
    trials = [
        make_trial(index=0, score=4.0, device_seconds=20.0, peak_memory_bytes=100),
        make_trial(index=1, score=4.0, device_seconds=30.0, peak_memory_bytes=300),
        make_trial(index=2, score=4.0, device_seconds=5.0, status="stopped_early"),
        make_trial(index=3, score=4.0, device_seconds=7.0, state=TrialState.PRUNED),
        make_trial(index=4, device_seconds=3.0, state=TrialState.FAIL, status="error"),
        make_trial(index=5, state=TrialState.WAITING),
    ]
    trials[2] = make_trial(
        index=2, score=4.0, device_seconds=5.0, status="stopped_early", peak_memory_bytes=200
    )
    cost = cell_cost(trials)
    assert cost.run_device_seconds == pytest.approx(25.0)
    assert cost.run_count == 2
    assert cost.device_seconds == pytest.approx(65.0)
    assert cost.peak_memory_bytes == 300
    assert cost.run_steps == 100


def test_a_running_trial_has_cost_what_its_last_evaluation_says() -> None:
    trial = make_trial(score=4.0, state=TrialState.RUNNING, device_seconds=12.0)
    assert device_seconds_of(trial) == trial.measurements[-1].device_seconds == 12.0


def test_nothing_run_has_no_cost_of_a_run() -> None:
    cost = cell_cost([make_trial(state=TrialState.WAITING)])
    assert (cost.run_device_seconds, cost.peak_memory_bytes, cost.device_seconds) == (None, None, 0)


def test_a_cold_run_costs_what_an_empty_cache_would_have_added() -> None:
    first = make_trial("lift", score=4.0, device_seconds=30.0, prefix_cache=PrefixCacheUse("on"))
    warm = make_trial(
        "lift", index=1, score=4.0, device_seconds=20.0,
        prefix_cache=PrefixCacheUse("on", cold_seconds=8.0),
    )  # fmt: skip
    assert cold_device_seconds_of(first) == 30.0
    assert cold_device_seconds_of(warm) == 28.0
    cost = cell_cost([first, warm])
    assert cost.run_cold_device_seconds == pytest.approx(29.0)
    assert cost.run_device_seconds == pytest.approx(25.0)
    assert cost.device_seconds == pytest.approx(50.0)


def test_checkpoints_are_in_what_was_spent_and_not_in_what_a_run_costs() -> None:
    trial = make_trial(score=4.0, device_seconds=20.0)
    assert trial.outcome is not None
    trial = replace(trial, outcome=replace(trial.outcome, checkpoint_device_seconds=5.0))
    assert (device_seconds_of(trial), spent_device_seconds_of(trial)) == (20.0, 25.0)
    assert cold_device_seconds_of(trial) == 20.0
    cost = cell_cost([trial])
    assert cost.run_cold_device_seconds == cost.run_device_seconds == 20.0
    assert cost.device_seconds == 25.0


def with_phases(trial: TrialRecord, *phases: PhaseSummary) -> TrialRecord:
    assert trial.outcome is not None
    return replace(trial, outcome=replace(trial.outcome, phases=phases))


def test_lift_in_four_groups_gives_each_parameter_a_quarter_of_fulls_updates() -> None:
    full, lift = (make_trial(arm, score=4.0, steps=100) for arm in ("full", "lift"))
    assert updates_per_parameter(full, PARAMETERS) == 100
    assert updates_per_parameter(lift, PARAMETERS) == pytest.approx(25)
    assert cell_cost([lift], PARAMETERS).run_updates_per_parameter == pytest.approx(25)


def test_updates_weigh_each_phase_by_what_it_trained() -> None:
    phases = PhaseSummary("top", 30, 100, 0, 0, 0), PhaseSummary("bottom", 10, 300, 0, 0, 0)
    lift = with_phases(make_trial("lift", score=4.0), *phases)
    assert updates_per_parameter(lift, 400) == pytest.approx((30 * 100 + 10 * 300) / 400)


def test_updates_of_lift_need_the_models_size_and_those_of_full_do_not() -> None:
    assert updates_per_parameter(make_trial("lift", score=4.0), None) is None
    assert updates_per_parameter(make_trial("full", score=4.0), None) == 100
    assert updates_per_parameter(with_phases(make_trial(score=4.0)), PARAMETERS) is None


def test_training_state_is_the_largest_of_any_phase_of_any_complete_trial() -> None:
    def trial(index: int, state: int, peak: int) -> TrialRecord:
        phases = PhaseSummary("a", 1, 1, 0, 0, 0, state, peak), PhaseSummary("b", 1, 1, 0, 0, 0, 5)
        return with_phases(make_trial("lift", index=index, score=4.0), *phases)

    cost = cell_cost([trial(0, 7, 9), trial(1, 6, 11)])
    assert (cost.state_bytes, cost.peak_state_bytes) == (7, 11)
    unknown = cell_cost([with_phases(make_trial(score=4.0), PhaseSummary("a", 1, 1, 0, 0, 0))])
    assert (unknown.state_bytes, unknown.peak_state_bytes) == (None, None)
