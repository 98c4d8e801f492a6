"""The budget: what is predicted, what is reserved, when a study ends, and how it goes on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from study.orchestration.ledger.budget import Budget, Cost, Predictor
from study.orchestration.ledger.ledger import Ledger
from study.orchestration.observer import QuietObserver
from study.protocol.plan import Cell, ModelFacts, StudyPlan, cell_of, plan_trials
from study.protocol.records import (
    Stage,
    StepCosts,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from study.store.study_store import StudyStore
from tests.helpers.costs import step_costs
from tests.helpers.results import make_config, make_trial
from tests.helpers.stores import measurement
from tests.orchestration.ledgers import loss_of, make_ledger, make_plan, outcomes, run_all, train

HOUR = 3600.0


def ended(arm: str, size: int, device_seconds: float, **more: Any) -> TrialRecord:
    """Took half its device seconds of wall time."""
    return make_trial(arm, size, score=1.0, device_seconds=device_seconds, **more)


def plan_with(budget: dict[str, float], probe: StepCosts | None = None) -> StudyPlan:
    """Two arms at 64 and 128 examples, 2 trials of 100 steps, 2 confirm seeds, 2 workers."""
    config = make_config(
        sizes=(64, 128),
        search={"trials": 2, "replicates": 1},
        training={"global_batch_size": 8, "steps": 100},
        resources={"workers_per_trial": 2},
        comparison="tokens",
        budget=budget,
    )
    return plan_trials(config, ModelFacts(4, probe))


def spec_of(plan: StudyPlan, trial_id: str) -> TrialSpec:
    return next(s for s in plan.search if s.trial_id == trial_id)


# Prediction


def predictor(*history: TrialRecord, probe: StepCosts | None = None) -> Predictor:
    made = Predictor(plan_with({}, probe))
    for record in history:
        made.learn(record)
    return made


FULL = make_trial("full", 64, state=TrialState.WAITING, steps=100).spec


def test_a_trial_is_predicted_to_cost_the_mean_of_its_like() -> None:
    known = predictor(
        ended("full", 64, 20.0), ended("full", 64, 30.0), ended("full", 128, 99.0),
        ended("lift", 64, 77.0),
    )  # fmt: skip
    assert known.predict(FULL) == Cost(25.0, 12.5)


def test_without_its_like_another_size_is_scaled_by_the_steps() -> None:
    known = predictor(ended("full", 128, 60.0, steps=300), ended("lift", 64, 77.0))
    assert known.predict(FULL).device_seconds == pytest.approx(20.0)
    assert known.predict(FULL).wall_seconds == pytest.approx(10.0)


def test_before_any_trial_the_probe_tells_steps_and_evaluations() -> None:
    probe = step_costs(0.3, 0.2, None, 2.0, 1.5, 0.05)
    lift = dataclasses.replace(FULL, arm="lift")
    # 100 steps, 5 evaluations, 2 workers.
    assert predictor(probe=probe).predict(FULL) == Cost(2 * 40.0, 40.0)
    assert predictor(probe=probe).predict(lift) == Cost(2 * 27.5, 27.5)


def test_nothing_known_predicts_nothing() -> None:
    assert predictor(ended("lift", 64, 77.0)).predict(FULL) == Cost()


def test_a_failure_tells_nothing_about_a_trial_that_works() -> None:
    lost = ended("full", 64, 1.0, state=TrialState.FAIL, status="error")
    assert predictor(lost, ended("full", 64, 40.0)).predict(FULL).device_seconds == 40.0


def test_a_confirm_trial_goes_to_its_last_step_though_search_trials_were_pruned() -> None:
    pruned = ended("full", 64, 12.0, state=TrialState.PRUNED)  # at step 60 of 100
    known = predictor(pruned, ended("full", 64, 20.0))
    assert known.predict(FULL).device_seconds == 16.0
    assert known.predict(FULL, Stage.CONFIRM).device_seconds == pytest.approx(32.0 / 160 * 100)


# Limits


def refusal(
    budget: dict[str, float],
    *,
    history: Sequence[TrialRecord] = (),
    running: Sequence[str] = (),
    owed: dict[Cell, int] | None = None,
    now: float = 0.0,
    slots: int = 1,
    stage: Stage = Stage.SEARCH,
) -> str | None:
    """About full-n64-r0-s1; `running` started at 0."""
    plan, clock = plan_with(budget), [0.0]
    made = Budget(plan, history, slots, lambda: clock[0])
    specs = [spec_of(plan, name) for name in running]
    for spec in specs:
        made.started(spec)
    clock[0] = now
    wanted = spec_of(plan, "full-n64-r0-s1")
    if stage is Stage.CONFIRM:
        (wanted, _) = plan.confirm(cell_of(wanted), wanted.hyperparameters)
    return made.refusal(wanted, specs, owed or {})


ONE = [ended("full", 64, 100.0)]  # 50 s of wall time


def test_a_search_trial_needs_room_for_itself_and_its_replicates_confirm_trials() -> None:
    assert refusal({"device_hours": 400 / HOUR}, history=ONE) is None  # 100 + 100 + 2 x 100
    told = refusal({"device_hours": 399 / HOUR}, history=ONE)
    assert told is not None
    assert "budget.device_hours is 0.1108" in told and "0.0278 are used" in told
    assert "full-n64-r0-s1 with the confirm trials" in told
    assert "Raise budget.device_hours" in told


def test_what_runs_and_what_other_replicates_are_owed_is_set_aside() -> None:
    other = Cell("full", 128, 0)
    history = [*ONE, ended("full", 128, 200.0)]
    more = {"history": history, "running": ["full-n64-r0-s0"], "owed": {other: 1}}
    # 300 spent, 100 running, 100 own, 2 x 100 own confirm, 200 owed.
    assert refusal({"device_hours": 900 / HOUR}, **more) is None
    assert refusal({"device_hours": 899 / HOUR}, **more) is not None


def test_a_confirm_trial_needs_room_for_itself_only() -> None:
    owed = {Cell("full", 128, 0): 2}
    more: dict[str, Any] = {"history": ONE, "owed": owed, "stage": Stage.CONFIRM}
    assert refusal({"device_hours": 200 / HOUR}, **more) is None
    told = refusal({"device_hours": 199 / HOUR}, **more)
    assert told is not None and "full-n64-r0-c0 would take" in told


def test_failed_and_replaced_trials_have_spent_what_they_spent() -> None:
    lost = ended("full", 64, 150.0, state=TrialState.FAIL, status="error", index=1)
    assert refusal({"device_hours": 550 / HOUR}, history=[*ONE, lost]) is None
    assert refusal({"device_hours": 549 / HOUR}, history=[*ONE, lost]) is not None


def test_a_trial_that_a_killed_driver_left_has_spent_up_to_its_last_evaluation() -> None:
    left = ended("full", 128, 60.0, state=TrialState.RUNNING)
    assert refusal({"device_hours": 460 / HOUR}, history=[*ONE, left]) is None
    assert refusal({"device_hours": 459 / HOUR}, history=[*ONE, left]) is not None


def test_a_trial_of_unknown_cost_starts_unless_the_limit_is_reached() -> None:
    assert refusal({"device_hours": 0.001, "wall_hours": 0.001}) is None
    assert refusal({"wall_hours": 1.0}, now=HOUR) is not None


def test_a_running_trial_that_took_more_than_predicted_counts_with_what_it_took() -> None:
    plan = plan_with({"device_hours": 600 / HOUR})
    made = Budget(plan, ONE, 1, lambda: 0.0)
    runs, wanted = spec_of(plan, "full-n64-r0-s0"), spec_of(plan, "full-n64-r0-s1")
    made.started(runs)
    assert made.refusal(wanted, [runs], {}) is None  # 100 + 100 + 100 + 2 x 100
    made.measured(runs, dataclasses.replace(measurement(50, 1.0), device_seconds=201.0))
    assert made.refusal(wanted, [runs], {}) is not None


def test_wall_time_is_shared_by_what_runs_side_by_side_but_confirm_follows_its_search() -> None:
    # 50 s each: its own, then two confirm trials.
    assert refusal({"wall_hours": 150 / HOUR}, history=ONE, slots=1) is None
    assert refusal({"wall_hours": 149 / HOUR}, history=ONE, slots=1) is not None
    assert refusal({"wall_hours": 100 / HOUR}, history=ONE, slots=4) is None
    assert refusal({"wall_hours": 99 / HOUR}, history=ONE, slots=4) is not None


def test_wall_time_left_of_running_trials_counts_and_time_passes() -> None:
    more: dict[str, Any] = {"history": ONE, "running": ["full-n64-r0-s0"]}
    # At 20 s: 30 s left of the running one, and 150 s.
    assert refusal({"wall_hours": 200 / HOUR}, now=20.0, **more) is None
    assert refusal({"wall_hours": 199 / HOUR}, now=20.0, **more) is not None


# In a study


class Messages(QuietObserver):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def costly(ledger: Ledger, spec: TrialSpec, device_seconds: float = 10.0) -> None:
    """A trial that takes so long on two devices."""
    for step in spec.evaluation_steps:
        told = dataclasses.replace(
            measurement(step, loss_of(spec, step)),
            device_seconds=device_seconds * step / spec.steps,
        )
        assert ledger.measured(spec.trial_id, told)
    score = loss_of(spec, spec.steps)
    outcome = TrialOutcome(
        "finished", score=score, best_step=spec.steps, device_seconds=device_seconds
    )
    ledger.ended(spec.trial_id, outcome)


def run_within(ledger: Ledger) -> list[TrialSpec]:
    """Hand out and train until nothing may start any more, as Ray Tune would."""
    started: list[TrialSpec] = []
    running: list[TrialSpec] = []
    while running or not ledger.has_nothing_to_start:
        while (spec := ledger.next()) is not None:
            started.append(spec)
            running.append(spec)
        if running:
            costly(ledger, running.pop(0))
    return started


def budgeted(folder: Path, **budget: float) -> StudyPlan:
    return make_plan(folder, sections={"budget": budget})


def test_a_study_ends_on_its_budget_with_every_begun_replicate_confirmed_or_reserved(
    tmp_path: Path,
) -> None:
    # 20 trials of 10 s; full and LIFT at 64 examples: 6 search and 4 confirm trials. A trial at
    # 128 examples then needs 10 s and its replicate's 20 s.
    observer = Messages()
    plan = budgeted(tmp_path, device_hours=129 / HOUR)
    ledger = make_ledger(plan, 1, observer=observer)
    started = run_within(ledger)
    assert len(started) == 10 and {s.size for s in started} == {64}
    assert sum(s.stage is Stage.CONFIRM for s in started) == 4
    assert ledger.has_nothing_to_start and not ledger.is_done
    (told,) = observer.texts
    assert "10 trials waiting" in told and "device_hours is 0.0358333, 0.0278 are used" in told
    assert "raise" in told.lower() and "full-n128-r0-s0" in told
    assert ledger.store.results().device_seconds == pytest.approx(100.0)


@pytest.mark.parametrize("concurrent", [1, 3])
def test_no_study_spends_more_than_its_budget(tmp_path: Path, concurrent: int) -> None:
    for hundredths in range(40, 200, 25):
        plan = budgeted(tmp_path / str(hundredths), device_hours=hundredths / HOUR)
        ledger = make_ledger(plan, concurrent)
        run_within(ledger)
        # Until one trial of each arm has ended nothing is known.
        spent, unknown = ledger.store.results().device_seconds, 10.0 * concurrent
        assert spent <= max(hundredths, unknown)


def test_a_study_whose_budget_is_raised_goes_on_and_ends_as_if_there_had_been_none(
    tmp_path: Path,
) -> None:
    whole = make_plan(tmp_path / "whole")
    run_all(make_ledger(whole))
    folder = tmp_path / "stopped"
    first = make_ledger(budgeted(folder, device_hours=75 / HOUR), 2)
    assert run_within(first)
    second = make_ledger(budgeted(folder, device_hours=150 / HOUR), 2)
    assert second.store.extension is None  # the budget is no part of what the study is
    assert run_within(second)
    plan = make_plan(folder)
    ledger = make_ledger(plan)
    while (spec := ledger.next()) is not None:
        train(ledger, spec)
    assert ledger.is_done
    assert outcomes(plan) == outcomes(whole)


def test_a_study_that_has_used_its_budget_says_so_before_anything_starts(tmp_path: Path) -> None:
    plan = budgeted(tmp_path, device_hours=75 / HOUR)
    run_within(make_ledger(plan))
    observer = Messages()
    again = make_ledger(plan, 0, observer=observer)
    assert again.has_nothing_to_start and not again.is_done
    assert again.has_nothing_to_start and len(observer.texts) == 1  # told once


def test_wall_hours_count_all_sessions(tmp_path: Path) -> None:
    plan = budgeted(tmp_path, wall_hours=1.0)
    store = StudyStore.create(plan.resolved)
    store.set_info("num_blocks", 4)
    store.set_info("seconds", HOUR - 60)
    now = [0.0]
    ledger = make_ledger(plan, 1, clock=lambda: now[0])
    now[0] = ledger.store._opened + 59
    spec = ledger.next()
    assert spec is not None  # nothing is known of what it takes
    now[0] += 2
    costly(ledger, spec)
    assert ledger.next() is None and ledger.has_nothing_to_start
    assert StudyStore.open(plan.resolved.database_url).results().seconds == pytest.approx(HOUR + 1)


def test_a_study_without_limits_asks_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(make_plan(tmp_path))
    assert not ledger._budget.is_limited
    assert math.isinf(ledger._polled)
