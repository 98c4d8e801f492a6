"""LIFT with its prefix cache against LIFT without it, on real engines."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from study.config import ModelConfig
from study.training.model import load_model
from tests.models import CAUSAL, ENCODERS, MORE_CAUSAL, tiny_model, tiny_model_folder
from tests.training.prefix.runs import (
    STAGES,
    compare,
    make_config,
    make_data,
    once,
    shared_folder,
)
from tests.training.workers import run_workers

STRUCTURES: dict[str, dict[str, Any]] = {
    "block by block": {"group_size": 1},
    "two sweeps": {"group_size": 2, "sweeps": 2},
    "cumulative": {"group_size": 1, "cumulative": True},
    "bottom-up": {"group_size": 1, "order": "bottom-up"},
    "random": {"group_size": 1, "order": "random"},
    "last block always": {"group_size": 1, "always_active": "head, last_1_blocks"},
}


def check_stages(rank: int, world_size: int) -> dict[str, Any]:
    found = {}
    for stage in STAGES:
        for equal in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                # Both ranks of a node share a folder.
                shared = shared_folder(folder, rank)
                found[f"{stage}-{equal}"] = compare(
                    tiny_model,
                    {"group_size": 2},
                    make_data(equal),
                    stage,
                    rank,
                    world_size,
                    shared,
                    8,
                )
    return found


def check_structures(rank: int, world_size: int) -> dict[str, Any]:
    found = {}
    tied = ["block by block", "bottom-up", "last block always"]
    for name in [*STRUCTURES, *(f"{name} tied" for name in tied)]:
        options = STRUCTURES[name.removesuffix(" tied")]

        def make(tied: bool = name.endswith("tied")) -> PreTrainedModel:
            return tiny_model(tie_word_embeddings=tied)

        with tempfile.TemporaryDirectory() as folder:
            shared = shared_folder(folder, rank)
            found[name] = compare(make, options, make_data(), 2, rank, world_size, shared, steps=8)
    return found


def check_architectures(rank: int, world_size: int) -> dict[str, Any]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in [*CAUSAL, *MORE_CAUSAL, *ENCODERS]:
            causal = architecture not in ENCODERS
            path = str(tiny_model_folder(Path(folder), architecture))

            def make(path: str = path, causal: bool = causal) -> PreTrainedModel:
                task = "causal-lm" if causal else "sequence-classification"
                return load_model(ModelConfig(path=path), task, 3, torch.float32, 0)

            data = make_data(classes=0 if causal else 3)
            found[architecture] = compare(
                make, {"group_size": 2}, data, 2, rank, world_size, folder, steps=8
            )
    return found


def check_bf16(rank: int, world_size: int) -> dict[str, Any]:
    def make() -> PreTrainedModel:
        return tiny_model().to(torch.bfloat16)

    with tempfile.TemporaryDirectory() as folder:
        return compare(make, {"group_size": 1}, make_data(), 0, rank, world_size, folder)


def check_keys(rank: int, world_size: int) -> dict[str, Any]:
    """Uses of one folder by models and data that differ in one thing from the first."""
    changed = tiny_model()
    with torch.no_grad():
        changed.model.layers[0].mlp.up_proj.weight[3, 5] += 1e-6
    head = tiny_model()
    torch.nn.init.normal_(head.lm_head.weight)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(folder)
        found["first"] = once(config)
        found["same"] = once(config)
        found["head"] = once(config, model=head)
        found["weights"] = once(config, model=changed)
        found["data"] = once(config, make_data(seed=1))
        found["dtype"] = once(config, model=tiny_model().to(torch.bfloat16))
        found["architecture"] = once(config, model=tiny_model("mistral"))
    return {name: run["use"] for name, run in found.items()}


def two_workers(rank: int, world_size: int) -> dict[str, Any]:
    return {
        "stages": check_stages(rank, world_size),
        "structures": check_structures(rank, world_size),
    }


def one_worker(rank: int, world_size: int) -> dict[str, Any]:
    return {
        "architectures": check_architectures(rank, world_size),
        "bf16": check_bf16(rank, world_size),
        "keys": check_keys(rank, world_size),
    }


@pytest.fixture(scope="module")
def both() -> dict[str, Any]:
    found = run_workers(two_workers, 2)
    assert found[0]["stages"]["0-True"]["warm"]["losses"]
    return found[0]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return run_workers(one_worker, 1)[0]


@pytest.mark.parametrize("stage", STAGES)
def test_with_equal_shapes_losses_are_bit_identical_to_recomputing(
    both: dict[str, Any], stage: int
) -> None:
    runs = both["stages"][f"{stage}-True"]
    assert runs["recomputed"]["status"] == "off: prefix_cache.enabled is false"
    assert runs["cold"]["losses"] == runs["recomputed"]["losses"]
    assert runs["warm"]["losses"] == runs["recomputed"]["losses"]


@pytest.mark.parametrize("stage", STAGES)
def test_with_other_shapes_losses_agree_to_rounding(both: dict[str, Any], stage: int) -> None:
    runs = both["stages"][f"{stage}-False"]
    for kind in ("cold", "warm"):
        assert runs[kind]["losses"] == pytest.approx(runs["recomputed"]["losses"], abs=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_a_second_trial_finds_everything_from_its_first_step(
    both: dict[str, Any], stage: int
) -> None:
    runs = both["stages"][f"{stage}-False"]
    cold, warm = runs["cold"]["use"], runs["warm"]["use"]
    assert cold["misses"] > 0 and cold["cold_seconds"] == 0
    assert runs["cold"]["steps_with_misses"][0] == 0
    assert warm["misses"] == 0 and warm["bytes_written"] == 0 and warm["hits"] > 0
    assert runs["warm"]["steps_with_misses"] == []
    assert warm["cold_seconds"] > 0


@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_every_structure_gives_the_losses_of_recomputing(both: dict[str, Any], kind: str) -> None:
    assert len(both["structures"]) == len(STRUCTURES) + 3
    for structure, runs in both["structures"].items():
        expected = pytest.approx(runs["recomputed"]["losses"], abs=1e-5)
        assert runs[kind]["losses"] == expected, structure


def test_the_cache_is_off_where_every_prefix_has_been_trained(both: dict[str, Any]) -> None:
    status = {name: runs["cold"]["status"] for name, runs in both["structures"].items()}
    never = "off: no phase has blocks below it that were never trained"
    assert status["bottom-up"] == status["bottom-up tied"] == never
    # The tied matrix is the head and trains in every phase.
    assert status["last block always tied"] == never
    assert status["block by block tied"] == status["last block always"] == "on"


@pytest.mark.parametrize("kind", ["cold", "warm"])
@pytest.mark.parametrize("architecture", [*CAUSAL, *MORE_CAUSAL, *ENCODERS])
def test_every_architecture_gives_the_losses_of_recomputing(
    alone: dict[str, Any], architecture: str, kind: str
) -> None:
    runs = alone["architectures"][architecture]
    assert runs[kind]["status"] == "on"
    assert runs[kind]["losses"] == pytest.approx(runs["recomputed"]["losses"], abs=1e-5)
    assert runs["warm"]["use"]["misses"] == 0


def test_in_bf16_a_cold_and_a_warm_cache_agree_with_recomputing_to_its_rounding(
    alone: dict[str, Any],
) -> None:
    runs = alone["bf16"]
    assert runs["cold"]["status"] == "on"
    assert runs["cold"]["losses"] == pytest.approx(runs["recomputed"]["losses"], rel=1e-2)
    assert runs["warm"]["losses"] == pytest.approx(runs["recomputed"]["losses"], rel=1e-2)


@pytest.mark.parametrize("change", ["weights", "data", "dtype", "architecture"])
def test_anything_changed_below_never_hits(alone: dict[str, Any], change: str) -> None:
    assert alone["keys"]["same"]["misses"] == 0
    assert alone["keys"][change]["misses"] == alone["keys"]["first"]["misses"] > 0


def test_a_new_head_alone_changes_nothing_below_and_hits(alone: dict[str, Any]) -> None:
    assert alone["keys"]["head"]["misses"] == 0
