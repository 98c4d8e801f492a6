"""The probe on two real workers, on every ZeRO stage."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from study.config.load import StudyConfig
from study.protocol.plan import ModelFacts, plan_trials
from study.protocol.records import StepCosts
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import BLOCKS, tiny_model_folder
from tests.helpers.workers import run_workers
from tests.tiers import tiered, wanted

STAGES = tiered(range(4), lambda stage: "default" if stage in (0, 3) else "ray")


def study_of(folder: Path, stage: int) -> dict[str, Any]:
    # Tiny parameters would all stay whole, and stage 3 would be tested in name only.
    persistent = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    return {
        "name": "probe",
        # Its biases are zero at first: the smallest step would change them.
        "model": {"path": str(folder / "tiny-gpt2-0"), "dropout": 0.0},
        "data": {
            "train": str(folder / "mine.jsonl"),
            "prompt": "{question}",
            "response": "{answer}",
            "retention_size": 10,
        },
        "dataset_sizes": [24],
        "arms": {"full": {}, "lift": {"group_size": 1}},
        "search": {"trials": 1, "replicates": 1},
        "training": {"steps": 8, "global_batch_size": 8, "sequence_length": 48, "evaluations": 2},
        "zero": {"stage": stage, "overrides": {"zero_optimization": persistent}},
        "prefix_cache": {"min_free_gib": 0, "folder": str(folder / f"hidden-{stage}")},
        "storage": {"results": str(folder / "results")},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import use_data
    from study.training.model.load import load_tokenizer

    folder = tmp_path_factory.mktemp("probe")
    tiny_model_folder(folder, "gpt2")
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    config = StudyConfig.model_validate(study_of(folder, 0))
    data = prepare_data(config, folder / "data", load_tokenizer(config.model))
    use_data(folder / "data", data.fingerprint)
    return folder


def probe_and_train(
    rank: int, world_size: int, folder: Path, stages: list[int]
) -> dict[int, dict[str, Any]]:
    """Per stage: what the baseline job found, whether a probe moved any weight, and what the
    first LIFT trial found kept."""
    import torch

    from study.training.baseline import measure_baseline
    from study.training.data.tokenised import StudyData
    from study.training.engine.checksum import checksum
    from study.training.loop import run_trial
    from study.training.model.base_model import BaseModel
    from study.training.placement import Placement
    from study.training.probe import measure_step_costs
    from tests.helpers.whole_weights import full_state

    data = StudyData.open(folder / "data")
    placement = Placement(torch.device("cpu"), rank, world_size)
    answers = {}
    for stage in stages:
        config = StudyConfig.model_validate(study_of(folder, stage))
        found = measure_baseline(config, data, placement)
        assert found.probe is not None
        plan = plan_trials(config, ModelFacts(BLOCKS, found.probe))
        spec = next(s for s in plan.search if s.arm == "lift")
        outcome = run_trial(config, spec, data, placement, lambda _: None)
        model = BaseModel(config, data.num_labels, placement).fresh(0)
        before = {name: checksum(tensor) for name, tensor in full_state(model).items()}
        again = measure_step_costs(config, data, placement, model)
        after = {name: checksum(tensor) for name, tensor in full_state(model).items()}
        answers[stage] = {
            "probe": found.probe.to_dict(),
            "probe again": again.to_dict(),
            "base": found.base.to_dict(),
            "weights moved": sorted(n for n in before if before[n] != after[n]),
            "cache": outcome.to_dict()["prefix_cache"],
            "models in the cache": len(list((folder / f"hidden-{stage}").glob("*/exact.json"))),
        }
    return answers


@pytest.fixture(scope="module")
def found(folder: Path, request: pytest.FixtureRequest) -> list[dict[int, dict[str, Any]]]:
    job = functools.partial(probe_and_train, folder=folder, stages=wanted(request, "stage"))
    return run_workers(job, 2)


@pytest.mark.parametrize("stage", STAGES)
def test_the_probe_times_both_arms_on_every_stage(
    found: list[dict[int, dict[str, Any]]], stage: int
) -> None:
    assert found[0][stage]["probe"] == found[1][stage]["probe"]
    probe = StepCosts.from_dict(found[0][stage]["probe"])
    full, lift = probe.arms["full"], probe.arms["lift"]
    assert lift.step_cached is not None  # the cache was on
    assert full.step_cached is full.fill is None  # it has no prefix
    assert 0.2 < probe.cost_ratio < 5
    times = (full.step, lift.step, lift.step_cached, lift.phase_switch)
    assert min(*times, full.evaluation, lift.evaluation) > 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_probe_times_the_filling_of_an_empty_cache(
    found: list[dict[int, dict[str, Any]]], stage: int
) -> None:
    lift = StepCosts.from_dict(found[0][stage]["probe"]).arms["lift"]
    assert lift.fill and lift.fill > 0
    assert lift.evaluation_fill is not None
    # The second probe finds everything there, and says so.
    again = StepCosts.from_dict(found[0][stage]["probe again"]).arms["lift"]
    assert (again.fill, again.evaluation_fill) == (None, None)


@pytest.mark.parametrize("stage", STAGES)
def test_the_probe_leaves_every_weight_as_it_was(
    found: list[dict[int, dict[str, Any]]], stage: int
) -> None:
    for worker in found:
        assert worker[stage]["weights moved"] == []


@pytest.mark.parametrize("stage", STAGES)
def test_what_the_probe_keeps_serves_the_trials(
    found: list[dict[int, dict[str, Any]]], stage: int
) -> None:
    use = found[0][stage]["cache"]
    assert found[0][stage]["models in the cache"] == 1
    assert use["status"] == "on" and use["cold_seconds"] > 0
