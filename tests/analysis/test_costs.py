"""Costs against values computed by hand."""

from __future__ import annotations

import pytest

from study.analysis.costs import cell_cost, device_seconds_of
from study.records import TrialState
from tests.results import make_trial


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
