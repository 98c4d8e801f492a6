"""The prefix cache and the memory formula on a real GPU. Run with `pytest -m gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from study.protocol.state_bytes import state_bytes
from study.training.engine.memory import held_bytes
from study.training.model.layout import find_layout
from tests.helpers.models import tiny_model
from tests.helpers.prefix_runs import STAGES, compare, make_data
from tests.helpers.workers import group_phases, phase_engine, run_workers

pytestmark = pytest.mark.gpu


def on_gpu(**overrides: Any) -> torch.nn.Module:
    return tiny_model(**overrides).to("cuda:0", torch.bfloat16)


def check_cache(rank: int, world_size: int) -> dict[int, Any]:
    import tempfile

    found = {}
    for stage in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            found[stage] = compare(
                on_gpu, {"group_size": 1}, make_data(), stage, rank, world_size, folder, steps=8
            )
    return found


def check_memory(rank: int, world_size: int) -> dict[int, list[tuple[int, int]]]:
    """Held and predicted bytes of optimizer, gradients and master weights in each phase."""
    found: dict[int, list[tuple[int, int]]] = {}
    for stage in STAGES:
        model = on_gpu(hidden_size=256, intermediate_size=512)
        layout = find_layout(model)  # type: ignore[arg-type]
        found[stage] = []
        for phase in group_phases(layout, 4, group_size=1):
            with phase_engine(
                model,  # type: ignore[arg-type]
                phase.parameters,
                stage,
                world_size,
                device=torch.device("cuda:0"),
                precision="bf16",
            ) as engine:
                count = layout.count(phase.parameters)
                formula = state_bytes(
                    layout.count(layout.parameters), count, world_size, stage, "bf16"
                )
                found[stage].append((held_bytes(engine).state, formula.peak))
    return found


@pytest.fixture(scope="module")
def cached() -> dict[int, Any]:
    return run_workers(check_cache, 1, backend="nccl")[0]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_losses_agree_with_recomputing_to_bf16_rounding(
    cached: dict[int, Any], kind: str, stage: int
) -> None:
    runs = cached[stage]
    assert runs[kind]["status"] == "on"
    assert runs[kind]["losses"] == pytest.approx(runs["recomputed"]["losses"], rel=1e-2)
    assert runs["warm"]["use"]["misses"] == 0


def test_no_phase_holds_more_than_the_formula() -> None:
    for phases in run_workers(check_memory, 1, backend="nccl")[0].values():
        for held, predicted in phases:
            assert 0 < held <= 1.1 * predicted
