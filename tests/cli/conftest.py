"""A study file with its model and data, and a finished study, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, cell_of, plan_trials
from study.protocol.records import (
    BaseModelRecord,
    PhaseSummary,
    PrefixCacheUse,
    TrialOutcome,
    TrialSpec,
    TrialState,
)
from study.store.study_store import StudyStore
from tests.helpers.commands import study
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.results import make_config
from tests.helpers.stores import measurement

PHASE = PhaseSummary(
    "group 12 (blocks 24-27), sweep 1", 1200, 1_234_944_000, 0.25, 1234.5, 2**31, 2**32, 3 * 2**31
)
OFF = "off: results differ when the lowest 3 blocks are left out (dropout)"


def cache_use(spec: TrialSpec) -> PrefixCacheUse | None:
    """The first LIFT trial fills, the second does without, the others read."""
    if spec.arm == "full":
        return None
    if spec.trial_id == "lift-n64-r0-s1":
        return PrefixCacheUse(OFF)
    if spec.trial_id == "lift-n64-r0-s0":
        return PrefixCacheUse("on", 60, 40, 2**20, 2**21, fill_seconds=4, seconds_saved=9)
    return PrefixCacheUse("on", 100, 0, 0, 2**21, 0, seconds_saved=15, cold_seconds=6)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and `study init`'s file pointed at them."""
    folder = tmp_path_factory.mktemp("project")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(300))
    done = study("init", cwd=folder)
    assert done.returncode == 0, done.stderr
    path = folder / "study.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["path"] = "./tiny-llama-0"
    config["data"] |= {"train": "mine.jsonl", "prompt": "{question}", "response": "{answer}"}
    config["dataset_sizes"] = [24, 48, 96, 192]
    config["training"] = {"global_batch_size": 8, "sequence_length": 64}
    path.write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of a finished study, its numbers made up."""
    folder = tmp_path_factory.mktemp("finished")
    config = make_config(
        sizes=(64, 128), replicates=1, trials=2, confirm_seeds=1, storage={"results": str(folder)}
    )
    plan = plan_trials(config, ModelFacts(4))
    store = StudyStore.create(config)
    store.set_info("num_blocks", 4)
    store.set_info("base", BaseModelRecord(3.0, 3.1, None).to_dict())

    def run(spec: TrialSpec, loss: float) -> None:
        begin_trial(plan, store, spec)
        store.report(spec, measurement(spec.steps, loss))
        outcome = TrialOutcome(
            "finished", score=loss, best_step=spec.steps, test_loss=loss + 0.1,
            device_seconds=100.0, phases=(PHASE,), prefix_cache=cache_use(spec),
            deepspeed_config={"zero_optimization": {"stage": 2}},
        )  # fmt: skip
        store.finish(spec, TrialState.COMPLETE, outcome)

    for number, spec in enumerate(plan.search):
        run(spec, 2.0 + number / 100)
    for cell in plan.cells:
        winner = next(s for s in plan.search if cell_of(s) == cell)
        for spec in plan.confirm(cell, winner.hyperparameters):
            run(spec, 2.5)
    return folder
