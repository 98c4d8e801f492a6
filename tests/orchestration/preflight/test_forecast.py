"""Hours and device-hours, by hand and on plans of known cost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from study.orchestration.preflight.forecast import (
    Cluster,
    Forecast,
    all_specs,
    forecast,
    trial_cost,
)
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import DataSummary, StepCosts, TrialRecord, TrialState
from tests.helpers.costs import step_costs
from tests.helpers.results import STARTED, make_config, make_trial

DATA = DataSummary("f", 900, 100, 300, 200, 0, 0, 0, 90.0, 60.0)
PROBE = step_costs(
    full_step=0.5, lift_step=0.4, full_evaluation=2.0, lift_evaluation=1.5, phase_switch=3.0
)
ALONE = Cluster(trials_at_once=1, devices_per_trial=4, workers_per_trial=4, startup_seconds=10)


def make_plan(probe: StepCosts | None = PROBE, **changes: Any) -> StudyPlan:
    shape: dict[str, Any] = {"arms": ("full",), "sizes": (800,), "trials": 3, "replicates": 2}
    search, reuse = changes.pop("search", None), changes.pop("reuse_workers", False)
    config = make_config(**(shape | changes))
    resources = config.resources.model_copy(update={"reuse_workers": reuse})
    config = config.model_copy(update={"resources": resources})
    if search:
        config = config.model_copy(update={"search": config.search.model_copy(update=search)})
    return plan_trials(config, ModelFacts(4, probe))


def predict(plan: StudyPlan, cluster: Cluster = ALONE, records: Any = ()) -> Forecast:
    found = forecast(plan, DATA, records, cluster)
    assert found is not None
    return found


def test_a_full_trial_costs_its_steps_evaluations_and_one_phase() -> None:
    plan = make_plan()
    search, confirm = all_specs(plan)[0], all_specs(plan)[-1]
    # 3 epochs of 800 examples in batches of 8; 5 evaluations.
    assert search.steps == 300
    assert trial_cost(plan, DATA, search) == pytest.approx(300 * 0.5 + 5 * 2.0 + 3.0)
    # Test and retention have five times the validation split's examples.
    assert trial_cost(plan, DATA, confirm) == pytest.approx(300 * 0.5 + 5 * 2.0 + 3.0 + 5 * 2.0)


def test_only_the_first_lift_trial_of_a_subset_fills_the_cache() -> None:
    probe = step_costs(0.5, 0.4, 0.2, 2.0, 1.5, 3.0)
    first, second = make_plan(probe, arms=("lift",)).search[:2]
    plan = make_plan(probe, arms=("lift",))
    assert trial_cost(plan, DATA, second) < trial_cost(plan, DATA, first)
    uncached = make_plan(arms=("lift",))
    assert trial_cost(uncached, DATA, second) == trial_cost(uncached, DATA, first)


def test_one_at_a_time_takes_the_sum_and_devices_are_held_while_workers_start() -> None:
    found = predict(make_plan())
    search, confirm = 163 + 10, 173 + 10
    assert found.trials == found.of == 10
    assert found.seconds == pytest.approx(6 * search + 4 * confirm)
    assert found.device_seconds == {"full": pytest.approx(4 * found.seconds)}


@pytest.mark.parametrize(("reuse", "startup"), [(True, 1.0), (True, 10.0), ("auto", 10.0)])
def test_workers_that_are_kept_start_once(reuse: bool | str, startup: float) -> None:
    cluster = dataclasses.replace(ALONE, startup_seconds=startup)
    found = predict(make_plan(reuse_workers=reuse), cluster)
    assert found.seconds == pytest.approx(startup + 6 * 163 + 4 * 173)


def test_workers_whose_start_is_short_beside_a_trial_are_not_kept() -> None:
    cluster = dataclasses.replace(ALONE, startup_seconds=8.0)  # under a twentieth of 163
    found = predict(make_plan(reuse_workers="auto"), cluster)
    assert found.seconds == pytest.approx(6 * 171 + 4 * 181)


def test_confirm_trials_wait_for_their_replicates_search() -> None:
    many = dataclasses.replace(ALONE, trials_at_once=100)
    assert predict(make_plan(), many).seconds == pytest.approx(173 + 183)


def test_a_sampler_that_learns_runs_a_replicates_search_in_sequence() -> None:
    many = dataclasses.replace(ALONE, trials_at_once=100)
    plan = make_plan(search={"sampler": "tpe"})
    assert predict(plan, many).seconds == pytest.approx(3 * 173 + 183)


def test_workers_that_share_cores_take_longer() -> None:
    crowded = dataclasses.replace(ALONE, slowdown=2.0)
    assert predict(make_plan(), crowded).seconds == pytest.approx(2 * predict(make_plan()).seconds)


def ended(index: int, steps: int = 300, device_seconds: float = 4 * 326.0, **changes: Any) -> Any:
    trial = make_trial(
        "full", 800, index=index, score=3.0, steps=steps, device_seconds=device_seconds, **changes
    )
    # As if starting it had taken 20 seconds.
    return dataclasses.replace(trial, finished=STARTED + device_seconds / 4 + 20)


def test_ended_trials_count_no_more_and_correct_the_probe() -> None:
    found = predict(make_plan(), records=[ended(0)])
    assert (found.trials, found.of) == (9, 10)
    # Twice what the probe said, and 20 s to start.
    assert found.seconds == pytest.approx(5 * (2 * 163 + 20) + 4 * (2 * 173 + 20))


def test_ended_trials_are_enough_without_a_probe() -> None:
    found = predict(make_plan(probe=None), records=[ended(0), ended(1)])
    assert found.seconds == pytest.approx(8 * (326 + 20))


def test_failed_trials_are_not_run_again_and_tell_nothing() -> None:
    failed = ended(1, state=TrialState.FAIL, status="error")
    found = predict(make_plan(), records=[failed])
    assert found.trials == 9
    assert found.seconds == pytest.approx(5 * 173 + 4 * 183)


def test_without_probe_and_trials_nothing_is_predicted() -> None:
    waiting = TrialRecord(make_trial().spec, TrialState.WAITING)
    assert forecast(make_plan(probe=None), DATA, [waiting], ALONE) is None


def test_start_up_that_nobody_measured_is_said_to_be_missing() -> None:
    unknown = dataclasses.replace(ALONE, startup_seconds=None)
    assert not predict(make_plan(), unknown).startup_known
    assert predict(make_plan()).startup_known


def test_a_finished_study_has_nothing_left() -> None:
    plan = make_plan(confirm_seeds=0, replicates=1)
    found = predict(plan, records=[ended(0), ended(1), ended(2)])
    assert (found.trials, found.seconds) == (0, 0.0)
