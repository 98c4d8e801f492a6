"""Whether an arm fits, on devices whose sizes are made up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from study.config.load import ModelConfig, StudyConfig
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.footprint import Footprint
from study.orchestration.preflight.memory import Devices, NodeRoom, check_memory, or_without_it
from study.orchestration.preflight.node_task import Gpu
from study.strategies import make_strategy
from study.training.model.shape import ModelShape, model_shape
from tests.helpers.data import study_config
from tests.helpers.models import tiny_model_folder
from tests.helpers.results import make_config

GIB, MIB = 2**30, 2**20


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    """A tiny model's parts, with 375,000 times its parameters: 7 billion."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"))
    tiny = model_shape(ModelConfig(path=str(folder)), "causal-lm")
    numel = {name: 375_000 * count for name, count in tiny.layout.numel.items()}
    layout = dataclasses.replace(tiny.layout, numel=numel)
    return dataclasses.replace(tiny, layout=layout, hidden=4096, intermediate=11008)


def judge(
    shape: ModelShape, devices: Devices, arm: str = "full", **changes: Any
) -> tuple[Finding, Footprint]:
    config: StudyConfig = study_config({"train": "x.jsonl", "text": "text"}, **changes)
    strategy = make_strategy(arm, {} if arm == "full" else {"group_size": 1}, {})
    phases = strategy.phases(shape.layout, 4)
    return check_memory(config, shape, phases, devices, longest=64)


def gpus(total: int, *, free: int | None = None, world_size: int = 1, share: float = 1) -> Devices:
    cards = (Gpu("H100", 320 * GIB, 320 * GIB), Gpu("L4", total, total if free is None else free))
    return Devices([NodeRoom("node-1", 1000 * GIB, cards, world_size, 1)], world_size, share)


def host(memory: int, at_once: int = 2, of_one_trial: int = 2) -> Devices:
    return Devices([NodeRoom("laptop", memory, None, at_once, of_one_trial)], of_one_trial, 0)


def test_the_smallest_gpu_decides(shape: ModelShape) -> None:
    finding, footprint = judge(shape, gpus(240 * GIB))
    assert finding.status is Status.PASS
    assert "of 240.0 GiB (L4)" in finding.found and "all parameters" in finding.found
    assert footprint.certain < footprint.total < 240 * GIB


def test_state_larger_than_the_gpu_fails_and_says_what_would_fit(shape: ModelShape) -> None:
    finding, _ = judge(shape, gpus(80 * GIB))
    assert finding.status is Status.FAIL
    # 7.03 billion times 2 bytes of weights and 18 of state, and the rest.
    assert finding.found.startswith("a worker needs about 132.2 GiB of 80.0 GiB (L4); each: ")
    assert "weights 13.1 GiB, state 91.6 GiB (117.8 GiB in a step)" in finding.found
    assert finding.remedy == "zero.offload_optimizer: cpu would need about 27.5 GiB."


def test_lift_fits_where_full_does_not(shape: ModelShape) -> None:
    _, full = judge(shape, gpus(240 * GIB))
    _, lift = judge(shape, gpus(240 * GIB), "lift")
    assert lift.total < full.total
    between = gpus(int(lift.total / 0.9) + MIB)
    assert judge(shape, between, "lift")[0].status is Status.PASS
    assert judge(shape, between)[0].status is not Status.PASS


def test_only_roughly_too_much_is_a_warning(shape: ModelShape) -> None:
    _, footprint = judge(shape, gpus(240 * GIB))
    finding, _ = judge(shape, gpus(footprint.total - MIB))
    assert finding.status is Status.WARN and finding.remedy


def test_nothing_that_would_fit_is_said_too(shape: ModelShape) -> None:
    finding, _ = judge(shape, gpus(10 * MIB))
    assert finding.status is Status.FAIL and "smaller model" in finding.remedy


def test_higher_stages_and_more_workers_need_less(shape: ModelShape) -> None:
    needs = [
        judge(shape, gpus(240 * GIB, world_size=workers), zero={"stage": stage})[1].certain
        for stage, workers in ((1, 1), (1, 4), (2, 4), (3, 4))
    ]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == 4


def test_workers_that_share_a_gpu_share_its_memory(shape: ModelShape) -> None:
    _, footprint = judge(shape, gpus(240 * GIB))
    finding, _ = judge(shape, gpus(int(1.2 * footprint.total), share=0.5))
    assert finding.status is not Status.PASS and "2 workers need" in finding.found


def test_a_gpu_that_others_use_is_a_warning(shape: ModelShape) -> None:
    finding, _ = judge(shape, gpus(240 * GIB, free=GIB // 2))
    assert finding.status is Status.WARN and "only 512.0 MiB are free" in finding.found


def test_gpus_that_cannot_be_asked_are_a_warning(shape: ModelShape) -> None:
    devices = Devices([NodeRoom("node-1", GIB, None, 1, 1)], 1, 1)
    finding, _ = judge(shape, devices)
    assert finding.status is Status.WARN and "--probe" in finding.remedy


def test_loading_the_model_needs_host_memory_on_a_gpu_node(shape: ModelShape) -> None:
    cards = (Gpu("H100", 320 * GIB, 320 * GIB),) * 8
    devices = Devices([NodeRoom("node-1", 50 * GIB, cards, 8, 8)], 8, 1)
    finding, _ = judge(shape, devices, training={"global_batch_size": 16, "sequence_length": 64})
    assert finding.status is Status.WARN and "host memory to load" in finding.found


def test_on_the_cpu_the_workers_of_a_node_share_its_free_memory(shape: ModelShape) -> None:
    finding, footprint = judge(shape, host(640 * GIB))
    assert finding.status is Status.PASS and "2 workers need about" in finding.found
    small, _ = judge(shape, host(footprint.total))
    assert small.status is Status.FAIL and small.remedy


def test_too_many_trials_at_once_are_a_warning_with_how_many_fit(shape: ModelShape) -> None:
    _, footprint = judge(shape, host(640 * GIB))
    finding, _ = judge(shape, host(5 * footprint.total, at_once=8))
    assert finding.status is Status.WARN
    assert "8 workers at once" in finding.found
    assert finding.remedy == "Set resources.concurrent_trials to 2."


def test_that_full_does_not_fit_may_be_the_answer() -> None:
    fails = Finding("full needs more", Status.FAIL, "Buy more.")
    both, alone = make_config(), make_config(arms=["full"])
    told = or_without_it(fails, both, "full").remedy
    assert told.startswith("Buy more. Or run LIFT alone (arms: [lift])")
    assert "decision.memory_limit_gib" in told
    for config, arm in ((both, "lift"), (alone, "full")):
        assert or_without_it(fails, config, arm) == fails
    warns = Finding("full is tight", Status.WARN, "Watch it.")
    assert or_without_it(warns, both, "full") == warns
