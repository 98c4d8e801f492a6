"""Weights between engines, on two real workers."""

from __future__ import annotations

from typing import Any

import pytest

from study.training.engine.memory import held_bytes
from study.training.model.layout import find_layout
from tests.helpers.models import tiny_model
from tests.helpers.workers import group_phases, phase_engine, run_workers, train

STAGES = (0, 1, 2, 3)
STRUCTURES: dict[str, dict[str, Any]] = {
    "parts always active": {"group_size": 1, "always_active": ["head", "last_1_blocks"]},
    "cumulative, at several rates": {
        "group_size": 1,
        "cumulative": True,
        "sweeps": 2,
        "group_lr_decay": 0.5,
    },
}


def weights_by_phase(rank: int, world_size: int) -> dict[tuple[str, int], list[int]]:
    """Bytes of weights that this rank holds in each phase, the first engine's last."""
    found = {}
    for name, options in STRUCTURES.items():
        for stage in STAGES:
            model = tiny_model()
            phases = group_phases(find_layout(model), **options)
            found[name, stage] = []
            for phase in (*phases, phases[0]):
                train(model, (phase,), stage, rank, world_size)
                with phase_engine(model, phase.parameters, stage, world_size) as engine:
                    found[name, stage].append(held_bytes(engine).weights)
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[tuple[str, int], list[int]]]:
    return run_workers(weights_by_phase, 2)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_what_trains_in_several_phases_leaves_no_weights_behind(
    found: list[dict[tuple[str, int], list[int]]], name: str, stage: int
) -> None:
    for worker in found:
        sizes = worker[name, stage]
        # Partitions are padded to even lengths.
        assert max(sizes) - min(sizes) <= 1024
