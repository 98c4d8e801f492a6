"""The store: truthful states, round trips, continuing, refusing what it does not know."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection

from study.basics.errors import StoreError
from study.config.load import StorageConfig
from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, StudyPlan, cell_of, plan_trials
from study.protocol.records import BaseModelRecord, Stage, TrialOutcome, TrialState
from study.protocol.results import winner_of
from study.store.connect import connect, make_parent
from study.store.study_store import StudyStore
from tests.helpers.costs import step_costs
from tests.helpers.results import make_config, make_trial
from tests.helpers.stores import measurement


@pytest.fixture(params=["sqlite", "postgresql"])
def plan(tmp_path: Path, request: pytest.FixtureRequest) -> StudyPlan:
    storage = {"results": str(tmp_path)}
    if request.param == "postgresql":
        storage["database"] = request.getfixturevalue("postgres_database")
    config = make_config(sizes=(64,), replicates=1, trials=2, confirm_seeds=1, storage=storage)
    return plan_trials(config, ModelFacts(4))


@pytest.fixture
def store(plan: StudyPlan) -> StudyStore:
    store = StudyStore.create(plan.resolved)
    store.set_info("num_blocks", 4)
    return store


def test_a_trial_reads_back_as_it_was_told(store: StudyStore, plan: StudyPlan) -> None:
    spec = begin_trial(plan, store, plan.search[0])
    assert spec == plan.search[0]
    store.set_job(spec.trial_id, "job-1")
    store.report(spec, measurement(10, 2.0))
    store.report(spec, measurement(20, 1.5))
    outcome = TrialOutcome(status="finished", score=1.5, best_step=20, versions={"torch": "x"})
    store.finish(spec, TrialState.COMPLETE, outcome)

    record = StudyStore.open(plan.resolved.database_url).record(spec)
    assert record is not None
    assert record.spec == spec
    assert record.state is TrialState.COMPLETE
    assert record.outcome == outcome
    assert [m.step for m in record.measurements] == [10, 20]
    assert record.ray_train_job == "job-1"
    assert record.started is not None and record.finished is not None


def test_optuna_opens_the_store_and_sees_validation_losses(
    store: StudyStore, plan: StudyPlan
) -> None:
    spec = begin_trial(plan, store, plan.search[0])
    store.report(spec, measurement(10, 2.0))
    store.finish(spec, TrialState.COMPLETE, TrialOutcome(status="finished", score=2.0))
    study = optuna.load_study(
        study_name=f"synthetic/{spec.arm}/n64/r0", storage=plan.resolved.database_url
    )
    assert study.best_trial.value == 2.0
    assert study.best_trial.intermediate_values == {10: 2.0}
    assert study.best_trial.params == spec.hyperparameters


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_a_trial_that_was_stopped_or_failed_is_never_complete(
    store: StudyStore, plan: StudyPlan, state: TrialState
) -> None:
    spec = begin_trial(plan, store, plan.search[0])
    store.report(spec, measurement(10, 0.1))
    store.finish(spec, state, TrialOutcome(status="diverged", reason="why", score=0.1))
    record = store.record(spec)
    assert record is not None and record.state is state
    assert record.outcome is not None and record.outcome.reason == "why"
    study = optuna.load_study(
        study_name=f"synthetic/{spec.arm}/n64/r0", storage=plan.resolved.database_url
    )
    with pytest.raises(ValueError):
        _ = study.best_trial


def test_a_trial_left_running_is_taken_up_again_under_its_own_number(
    store: StudyStore, plan: StudyPlan
) -> None:
    spec = begin_trial(plan, store, plan.search[1])
    store.report(spec, measurement(10, 2.0))
    # A new driver: the old one was killed.
    again = StudyStore.create(plan.resolved)
    assert begin_trial(plan, again, plan.search[1]) == spec
    again.report(spec, measurement(10, 2.0))
    again.report(spec, measurement(20, 1.0))
    again.finish(spec, TrialState.COMPLETE, TrialOutcome(status="finished", score=1.0))
    study = optuna.load_study(
        study_name=f"synthetic/{spec.arm}/n64/r0", storage=plan.resolved.database_url
    )
    assert [t.state.name for t in study.trials] == ["COMPLETE"]
    assert study.trials[0].intermediate_values == {10: 2.0, 20: 1.0}


def test_a_trial_left_running_without_parameters_is_void_and_asked_again(
    store: StudyStore, plan: StudyPlan
) -> None:
    spec = plan.search[0]
    cell_study = store.optuna_study(cell_of(spec), spec.stage)
    cell_study.ask()  # killed between creating the trial and its first parameter
    assert begin_trial(plan, store, spec) == spec
    assert [t.state.name for t in cell_study.trials] == ["FAIL", "RUNNING"]
    assert list(store.records(cell_of(spec), Stage.SEARCH)) == [spec.index]


def test_results_hold_waiting_trials_and_confirm_trials_once_a_winner_is_known(
    store: StudyStore, plan: StudyPlan
) -> None:
    assert [r.state for r in store.results().trials] == [TrialState.WAITING] * 4
    for spec, loss in zip([s for s in plan.search if s.arm == "full"], (2.0, 1.0), strict=True):
        begin_trial(plan, store, spec)
        store.report(spec, measurement(10, loss))
        store.finish(spec, TrialState.COMPLETE, TrialOutcome(status="finished", score=loss))
    confirm = [r for r in store.results().trials if r.spec.stage is Stage.CONFIRM]
    winner = [s for s in plan.search if s.arm == "full"][1]
    assert [r.spec.hyperparameters for r in confirm] == [winner.hyperparameters]


def test_a_reader_makes_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()  # by a driver that begins
    with pytest.raises(StoreError, match="Studies there: none"):
        StudyStore.open(f"sqlite:///{path}")
    assert path.stat().st_size == 0


def test_drivers_that_begin_at_once_share_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with ThreadPoolExecutor(8) as pool:
        storages = list(pool.map(connect, [url] * 8))
    storages[0].create_new_study([StudyDirection.MINIMIZE], "one")
    assert [len(storage.get_all_studies()) for storage in storages] == [1] * 8


def test_a_driver_killed_at_its_first_steps_is_begun_again(plan: StudyPlan) -> None:
    make_parent(plan.resolved.database_url)
    connect(plan.resolved.database_url).create_new_study([StudyDirection.MINIMIZE], "synthetic")
    StudyStore.create(plan.resolved)
    assert StudyStore.open(plan.resolved.database_url).config.search == plan.resolved.search


def test_a_study_of_somebody_else_is_not_taken_over(plan: StudyPlan) -> None:
    make_parent(plan.resolved.database_url)
    storage = connect(plan.resolved.database_url)
    storage.create_new_trial(storage.create_new_study([StudyDirection.MINIMIZE], "synthetic"))
    with pytest.raises(StoreError, match="schema version None"):
        StudyStore.create(plan.resolved)


def test_facts_about_the_study_survive(store: StudyStore, plan: StudyPlan) -> None:
    store.set_info("base", BaseModelRecord(1.0, 2.0, None, (1.5, 2.5)).to_dict())
    store.set_info("probe", step_costs(0.3, 0.2, 0.1, 2.0, 1.5, 0.05).to_dict())
    results = StudyStore.open(plan.resolved.database_url).results()
    assert results.base == BaseModelRecord(1.0, 2.0, None, (1.5, 2.5))
    assert results.probe == step_costs(0.3, 0.2, 0.1, 2.0, 1.5, 0.05)
    assert results.cost_ratio == pytest.approx(1.5)
    place = StorageConfig(database=plan.resolved.database_url)
    assert results.config == plan.resolved.at(place), "a database alone says nothing of files"


def test_another_study_file_is_refused_and_says_what_changed(
    store: StudyStore, plan: StudyPlan
) -> None:
    begin_trial(plan, store, plan.search[0])
    changed = plan.resolved.model_copy(update={"seed": 7})
    with pytest.raises(StoreError, match=r"seed: 0 -> 7 \(every subset"):
        StudyStore.create(changed)
    assert StudyStore.open(plan.resolved.database_url).config.seed == 0


def test_a_study_with_results_takes_a_larger_file_and_says_how_it_grows(
    store: StudyStore, plan: StudyPlan
) -> None:
    begin_trial(plan, store, plan.search[0])
    search = plan.resolved.search.model_copy(update={"trials": 5})
    larger = plan.resolved.model_copy(update={"search": search})
    assert StudyStore.create(larger).extension == "Extending the study: search.trials 2 -> 5"
    assert StudyStore.open(plan.resolved.database_url).config.search.trials == 5
    assert StudyStore.create(larger).extension is None


def finish_searches(store: StudyStore, plan: StudyPlan, losses: tuple[float, ...]) -> StudyPlan:
    """End full's search trials that are not on record yet, in order, with these losses."""
    specs = [s for s in plan.search if s.arm == "full" and store.record(s) is None]
    for spec, loss in zip(specs, losses, strict=True):
        begin_trial(plan, store, spec)
        store.report(spec, measurement(10, loss))
        store.finish(spec, TrialState.COMPLETE, TrialOutcome("finished", score=loss))
    return plan


def confirm_trials(store: StudyStore) -> list[tuple[TrialState, float]]:
    return [
        (r.state, r.spec.hyperparameters["learning_rate"])
        for r in store.results().trials
        if r.spec.stage is Stage.CONFIRM
    ]


def test_confirm_trials_of_a_former_winner_stay_in_optuna_and_count_nowhere(
    store: StudyStore, plan: StudyPlan
) -> None:
    finish_searches(store, plan, (2.0, 1.5))
    old = [s for s in plan.search if s.arm == "full"][1]
    (spec,) = plan.confirm(cell_of(old), old.hyperparameters)
    begin_trial(plan, store, spec)
    store.report(spec, measurement(10, 1.4))
    store.finish(spec, TrialState.COMPLETE, TrialOutcome("finished", score=1.4, device_seconds=7.0))
    assert confirm_trials(store) == [(TrialState.COMPLETE, old.hyperparameters["learning_rate"])]

    search = plan.resolved.search.model_copy(update={"trials": 3})
    store = StudyStore.create(plan.resolved.model_copy(update={"search": search}))
    larger = store.plan()
    assert larger is not None
    assert confirm_trials(store) == []  # who wins is not known again
    finish_searches(store, larger, (1.0,))
    new = [s for s in larger.search if s.arm == "full"][2]
    assert confirm_trials(store) == [(TrialState.WAITING, new.hyperparameters["learning_rate"])]
    assert new.hyperparameters != old.hyperparameters
    study = optuna.load_study(
        study_name="synthetic/full/n64/r0/confirm", storage=plan.resolved.database_url
    )
    assert [t.state.name for t in study.trials] == ["COMPLETE"]
    assert store.results().device_seconds == 3 * 2.0 + 7.0  # what it cost was spent all the same


def test_a_former_winners_confirm_trial_that_was_killed_is_not_taken_up_by_the_new_one(
    store: StudyStore, plan: StudyPlan
) -> None:
    first, second = [s for s in plan.search if s.arm == "full"]
    (old,) = plan.confirm(cell_of(first), first.hyperparameters)
    (new,) = plan.confirm(cell_of(second), second.hyperparameters)
    begin_trial(plan, store, old)
    store.report(old, measurement(10, 2.0))  # killed
    again = StudyStore.create(plan.resolved)
    assert begin_trial(plan, again, new).hyperparameters == second.hyperparameters
    record = again.record(new)
    assert record is not None and record.measurements == ()
    study = optuna.load_study(
        study_name="synthetic/full/n64/r0/confirm", storage=plan.resolved.database_url
    )
    assert [t.state.name for t in study.trials] == ["FAIL", "RUNNING"]


def test_wall_seconds_add_up_over_sessions_even_of_killed_drivers(plan: StudyPlan) -> None:
    first = StudyStore.create(plan.resolved)
    first.keep_wall_seconds(first._opened + 100)
    first.keep_wall_seconds(first._opened + 150)  # killed here
    second = StudyStore.create(plan.resolved)
    second.keep_wall_seconds(second._opened + 30)
    assert second.results().seconds == pytest.approx(180)


def test_each_stop_request_is_a_key_of_its_own(store: StudyStore, plan: StudyPlan) -> None:
    other = StudyStore.open(plan.resolved.database_url)  # `study stop` beside the driver
    store.request_stop("full-n64-r0-s0")
    other.request_stop("full-n64-r0-s1")
    assert store.stop_requests() == {"full-n64-r0-s0", "full-n64-r0-s1"}
    store.withdraw_stop("full-n64-r0-s0")
    assert other.stop_requests() == {"full-n64-r0-s1"}


def test_a_file_mended_before_anything_ran_is_taken(store: StudyStore, plan: StudyPlan) -> None:
    StudyStore.create(plan.resolved.model_copy(update={"seed": 7}))
    assert StudyStore.open(plan.resolved.database_url).config.seed == 7


def test_what_no_result_depends_on_may_change(store: StudyStore, plan: StudyPlan) -> None:
    decision = plan.resolved.decision.model_copy(update={"dataset_size": 100})
    StudyStore.create(plan.resolved.model_copy(update={"decision": decision}))
    assert StudyStore.open(plan.resolved.database_url).config.decision.dataset_size == 100


def test_an_unknown_schema_version_is_refused(store: StudyStore, plan: StudyPlan) -> None:
    store.set_info("schema_version", 99)
    with pytest.raises(StoreError, match="schema version 99"):
        StudyStore.open(plan.resolved.database_url)


def test_a_missing_store_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="study run"):
        StudyStore.open(f"sqlite:///{tmp_path}/none/study.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_text("not a database, but long enough to be read as one " * 10)
    with pytest.raises(StoreError, match="Cannot open the study storage"):
        StudyStore.open(f"sqlite:///{path}")


def test_the_winner_is_the_lowest_complete_loss_and_pruned_trials_never_win() -> None:
    records = [
        make_trial(index=0, score=2.0),
        make_trial(index=1, score=1.0, state=TrialState.PRUNED),
        make_trial(index=2, score=1.5),
    ]
    assert winner_of(records, 3) is records[2]
    assert winner_of(records, 4) is None  # one has not ended
    assert winner_of([dataclasses.replace(records[1])], 1) is None
