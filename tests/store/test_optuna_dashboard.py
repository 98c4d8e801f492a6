"""Optuna Dashboard on a study's storage: the real one, asked as its pages ask it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna_dashboard import get_note, save_note, wsgi

from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, plan_trials
from study.protocol.records import BaseModelRecord, Stage, TrialOutcome, TrialState
from study.store.connect import studies_at
from study.store.study_store import StudyStore
from tests.helpers.results import make_config
from tests.helpers.stores import measurement

Ask = Callable[[str], Any]
SEARCH = "synthetic/lift/n64/r0"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> optuna.storages.BaseStorage:
    """A finished search of LIFT, and one of its winner's confirm trials."""
    folder = tmp_path_factory.mktemp("dashboard")
    config = make_config(sizes=(64,), replicates=1, trials=2, storage={"results": str(folder)})
    plan = plan_trials(config, ModelFacts(4))
    store = StudyStore.create(config)
    for _ in range(2):  # a driver that was killed measures it again
        store.keep_base(BaseModelRecord(3.0, 3.1, 2.5, (3.0, 3.2)))
    search = [s for s in plan.search if s.arm == "lift"]
    cell = next(c for c in plan.cells if c.arm == "lift")
    confirm = plan.confirm(cell, search[0].hyperparameters)[0]
    for number, spec in enumerate([*search, confirm]):
        spec = begin_trial(plan, store, spec)
        for step in spec.evaluation_steps[:2]:
            store.report(spec, measurement(step, 2.0 + number / 10 - step / 1e4))
        is_confirm = spec.stage is Stage.CONFIRM
        early = number == 1
        outcome = TrialOutcome(
            "stopped_early" if early else "finished",
            reason="no new lowest for 2" if early else "",
            score=2.0,
            best_step=spec.evaluation_steps[1],
            device_seconds=12.34,
            test_loss=2.1 if is_confirm else None,
            test_losses=(2.0,) * 500 if is_confirm else (),
        )
        store.finish(spec, TrialState.COMPLETE, outcome)
    return optuna.storages.get_storage(config.database_url)


@pytest.fixture(scope="module")
def ask(storage: optuna.storages.BaseStorage) -> Ask:
    """The dashboard's JSON interface."""
    app = wsgi(storage)

    def get(path: str) -> Any:
        environment: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
        setup_testing_defaults(environment)
        statuses: list[str] = []
        body = b"".join(app(environment, lambda status, *_: statuses.append(status)))
        assert statuses == ["200 OK"], body
        return json.loads(body)

    return get


def detail(ask: Ask, name: str) -> Any:
    found = {s["study_name"]: s["study_id"] for s in ask("/api/studies")["study_summaries"]}
    return ask(f"/api/studies/{found[name]}")


def attributes(shown: Any) -> dict[str, str]:
    return {attr["key"]: attr["value"] for attr in shown["user_attrs"]}


def test_studies_are_named_after_their_cells(ask: Ask) -> None:
    names = {s["study_name"] for s in ask("/api/studies")["study_summaries"]}
    assert names == {"synthetic", SEARCH, f"{SEARCH}/confirm"}


def test_values_have_a_name_and_curves_are_there(ask: Ask) -> None:
    found = detail(ask, SEARCH)
    assert found["objective_names"] == ["validation loss"]
    assert found["directions"] == ["minimize"] and found["has_intermediate_values"]
    assert [len(t["intermediate_values"]) for t in found["trials"]] == [2, 2]
    assert {p["name"] for p in found["union_search_space"]} >= {"learning_rate"}


def test_a_trials_row_says_which_it_is_and_what_came_of_it(ask: Ask) -> None:
    (trial,) = detail(ask, f"{SEARCH}/confirm")["trials"]
    found = attributes(trial)
    assert (found["trial"], found["test loss"]) == ("lift-n64-r0-c0", "2.1")
    assert found["device seconds"] == "12.3" and "status" not in found
    first, last = map(attributes, detail(ask, SEARCH)["trials"])
    assert "test loss" not in first and "status" not in first
    assert (last["status"], last["reason"]) == ("stopped_early", "no new lowest for 2")
    sortable = {a["key"] for a in detail(ask, SEARCH)["union_user_attrs"] if a["sortable"]}
    assert "device seconds" in sortable


def test_a_study_says_its_arm_and_size(ask: Ask) -> None:
    for name in (SEARCH, f"{SEARCH}/confirm"):
        assert attributes(detail(ask, name)) == {
            "arm": "lift", "dataset size": "64", "replicate": "0",
        }  # fmt: skip


def test_no_attribute_floods_the_page(ask: Ask) -> None:
    (trial,) = detail(ask, f"{SEARCH}/confirm")["trials"]
    assert max(map(len, attributes(trial).values())) <= 1024


def test_the_study_of_the_whole_has_the_base_model_for_its_trial(ask: Ask) -> None:
    whole = detail(ask, "synthetic")
    (trial,) = whole["trials"]
    assert trial["values"] == [3.0] and whole["objective_names"] == ["validation loss"]
    found = attributes(trial)
    assert found == {"trial": "base model", "test loss": "3.1", "retention loss": "2.5"}
    assert "its one trial" in whole["note"]["body"]


def test_the_base_model_is_no_trial_of_the_study(tmp_path: Path) -> None:
    config = make_config(storage={"results": str(tmp_path)})
    StudyStore.create(config).keep_base(BaseModelRecord(3.0, 3.1, None))
    store = StudyStore.open(config.database_url)
    assert store.all_records() == [] and store.results().trials == ()
    assert store.base == BaseModelRecord(3.0, 3.1, None)
    assert studies_at(config.database_url)[1]["synthetic"]["base"]["test_loss"] == 3.1


def test_notes_say_what_a_study_is(ask: Ask) -> None:
    whole, search = detail(ask, "synthetic")["note"], detail(ask, SEARCH)["note"]
    confirm = detail(ask, f"{SEARCH}/confirm")["note"]
    assert "both arms at equal device seconds" in whole["body"] and "64 training" in whole["body"]
    assert search["body"].startswith("# LIFT, 64 examples, replicate 0: search")
    assert confirm["body"].startswith("# LIFT, 64 examples, replicate 0: confirm")


def test_a_note_that_somebody_wrote_stays(tmp_path: Path) -> None:
    config = make_config(storage={"results": str(tmp_path)})
    StudyStore.create(config)
    written = optuna.load_study(study_name="synthetic", storage=config.database_url)
    assert get_note(written).startswith("# `synthetic`")
    save_note(written, "Mine.")
    StudyStore.create(config)
    again = optuna.load_study(study_name="synthetic", storage=config.database_url)
    assert get_note(again) == "Mine."
