"""One real step of an arm's heaviest phase, on real workers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from study.strategies import make_strategy
from study.training.data.prepare import prepare_data
from study.training.data.tokenised import StudyData, use_data
from study.training.model.load import load_tokenizer
from study.training.model.shape import model_shape
from study.training.placement import Placement
from study.training.rehearsal import rehearse
from tests.helpers.data import study_config, task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.workers import run_workers


def make_config(folder: Path, stage: int, arms: tuple[str, ...]) -> Any:
    return study_config(
        {"train": str(folder / "mine.jsonl"), "prompt": "{question}", "response": "{answer}"},
        model={"path": str(folder / "tiny-llama-0")},
        arms={arm: {} for arm in arms},
        training={"global_batch_size": 8, "sequence_length": 64},
        zero={"stage": stage},
        storage={"results": str(folder / "results")},
    )


def rehearsed(rank: int, world_size: int, folder: Path, stage: int, arms: Any) -> dict[str, Any]:
    config = make_config(folder, stage, arms)
    shape = model_shape(config.model, config.task)
    phases = [(arm, make_strategy(arm, {}, {}).phases(shape.layout, 4)[-1]) for arm in arms]
    placement = Placement(torch.device("cpu"), rank, world_size)
    data = StudyData.open(folder / "results" / "data")
    found = rehearse(config, data, placement, phases, scratch="check-1", costs=True)
    return {"peak": found.peak_bytes, "costs": found.costs and found.costs.to_dict(),
            "load": found.load_seconds, "seconds": found.seconds}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(60))
    config = make_config(folder, 2, ("full",))
    data = prepare_data(config, folder / "results" / "data", load_tokenizer(config.model))
    use_data(folder / "results" / "data", data.fingerprint)
    return folder


@pytest.mark.parametrize("stage", [2, 3])
def test_both_arms_take_a_step_and_are_timed_on_two_workers(folder: Path, stage: int) -> None:
    job = functools.partial(rehearsed, folder=folder, stage=stage, arms=("lift", "full"))
    first, second = run_workers(job, 2)
    assert first == second
    assert first["peak"].keys() == {"lift", "full"} and min(first["peak"].values()) > 2**26
    assert all(value > 0 for value in first["costs"].values() if value is not None)
    assert 0 < first["load"] < first["seconds"]
    # Hidden states that the timing kept would make the study's first trial look cheap.
    assert [p.name for p in (folder / "results").iterdir()] == ["data"]


def test_a_study_of_one_arm_times_that_arm(folder: Path) -> None:
    job = functools.partial(rehearsed, folder=folder, stage=0, arms=("full",))
    (found,) = run_workers(job, 1)
    costs = found["costs"]
    assert costs["full_step"] > 0 and costs["full_evaluation"] > 0
    assert costs["full_phase_switch"] > 0
    assert not [name for name in costs if name.startswith("lift_")]
