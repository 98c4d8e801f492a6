"""LIFT with its prefix cache against LIFT without it, on real engines."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from study.config.load import ModelConfig
from study.training.model.load import load_model
from tests.helpers.models import ALL_ARCHITECTURES, ENCODERS, telling, tiny_model, tiny_model_folder
from tests.helpers.prefix_runs import STAGES, compare, make_config, make_data, once, shared_folder
from tests.helpers.workers import run_workers
from tests.tiers import thinned, wanted

STRUCTURES: dict[str, dict[str, Any]] = {
    "block by block": {"group_size": 1},
    "two sweeps": {"group_size": 2, "sweeps": 2},
    "cumulative": {"group_size": 1, "cumulative": True},
    "bottom-up": {"group_size": 1, "order": "bottom-up"},
    "random": {"group_size": 1, "order": "random"},
    "last block always": {"group_size": 1, "always_active": "head, last_1_blocks"},
}


def check_stages(
    kinds: Sequence[tuple[int, bool]], rank: int, world_size: int
) -> dict[tuple[int, bool], Any]:
    found = {}
    for stage, equal in kinds:
        with tempfile.TemporaryDirectory() as folder:
            # Both ranks of a node share a folder.
            shared = shared_folder(folder, rank)
            found[stage, equal] = compare(
                tiny_model, {"group_size": 2}, make_data(equal), stage, rank, world_size, shared, 8
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


def check_architectures(architectures: Sequence[str], rank: int, world_size: int) -> dict[str, Any]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
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


def two_workers(kinds: Sequence[tuple[int, bool]], rank: int, world_size: int) -> dict[str, Any]:
    return {
        "stages": check_stages(kinds, rank, world_size),
        "structures": check_structures(rank, world_size),
    }


def one_worker(architectures: Sequence[str], rank: int, world_size: int) -> dict[str, Any]:
    return {
        "architectures": check_architectures(architectures, rank, world_size),
        "bf16": check_bf16(rank, world_size),
        "keys": check_keys(rank, world_size),
    }


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest) -> dict[str, Any]:
    kinds = wanted(request, "stage", "equal")
    return run_workers(functools.partial(two_workers, kinds), 2)[0]


@pytest.fixture(scope="module")
def alone(request: pytest.FixtureRequest) -> dict[str, Any]:
    architectures = wanted(request, "architecture")
    return run_workers(functools.partial(one_worker, architectures), 1)[0]


@pytest.mark.parametrize(
    ("stage", "equal"),
    # By default either kind of shapes on every second stage and both on the last.
    thinned(itertools.product(STAGES, (True, False)), lambda s, equal: s == 3 or s % 2 == equal),
)
def test_with_equal_shapes_losses_are_those_of_recomputing_and_with_others_to_rounding(
    both: dict[str, Any], stage: int, equal: bool
) -> None:
    runs = both["stages"][stage, equal]
    recomputed, cold, warm = (runs[kind] for kind in ("recomputed", "cold", "warm"))
    assert recomputed["status"] == "off: prefix_cache.enabled is false" and recomputed["losses"]
    for run in (cold, warm):
        expected = recomputed["losses"]
        assert run["losses"] == (expected if equal else pytest.approx(expected, abs=1e-5))
    # A second trial finds everything from its first step.
    used, used_again = cold["use"], warm["use"]
    assert used["misses"] > 0 and used["cold_seconds"] == 0
    assert cold["steps_with_misses"][0] == 0
    assert used_again["misses"] == 0 and used_again["bytes_written"] == 0 < used_again["hits"]
    assert warm["steps_with_misses"] == []
    assert used_again["cold_seconds"] > 0


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


@pytest.mark.parametrize("architecture", telling(ALL_ARCHITECTURES))
def test_every_architecture_gives_the_losses_of_recomputing(
    alone: dict[str, Any], architecture: str
) -> None:
    runs = alone["architectures"][architecture]
    for kind in ("cold", "warm"):
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
