"""Memory predicted before anything is loaded, against what is really kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from study.config.load import ModelConfig, StudyConfig
from study.orchestration.preflight.footprint import (
    Load,
    checkpoint_bytes,
    largest_footprint,
    phase_footprint,
    possible_phases,
    tokens_per_pass,
)
from study.protocol.plan import ModelFacts, plan_trials
from study.strategies import make_strategy
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from study.training.model.load import load_model, new_head
from study.training.model.shape import ModelShape, model_shape
from tests.helpers.data import study_config
from tests.helpers.models import BLOCKS, CAUSAL, ENCODERS, tiny_model_folder

ROWS, TOKENS = 8, 64
LOAD = Load(1, "fp32", "cpu", ROWS * TOKENS, TOKENS)


def config_for(**changes: Any) -> StudyConfig:
    return study_config({"train": "x.jsonl", "text": "text"}, **changes)


def bytes_kept_for_backward(model: Any, task: str) -> int:
    """Storages that autograd holds after a forward pass, weights apart."""
    kept: dict[int, torch.Tensor] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(5, 260, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    classes = torch.zeros(ROWS, dtype=torch.long)
    labels = ids if task == "causal-lm" else classes
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        make_loss(task).total(logits, {"labels": labels})
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", [*CAUSAL, *ENCODERS])
def test_activations_are_right_within_a_factor_of_two(
    tmp_path: Path, architecture: str, attention: str
) -> None:
    folder = tiny_model_folder(tmp_path, architecture)
    task = "causal-lm" if architecture in CAUSAL else "sequence-classification"
    config = config_for(model={"path": str(folder), "attention": attention})
    shape = model_shape(config.model, task)
    model = load_model(config.model, task, 2, torch.float32, 0).train()
    for options in ({}, {"group_size": 2}):
        arm = "lift" if options else "full"
        for phase in make_strategy(arm, options, {}).phases(shape.layout, BLOCKS):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in phase.parameters)
            predicted = phase_footprint(config, shape, phase, LOAD).activations
            # The logits' gradient and the loss's chunks come in the backward pass.
            predicted -= 4 * LOAD.tokens * shape.logits + 8 * LOAD.tokens * shape.logits
            real = bytes_kept_for_backward(model, task)
            assert real / 2 < predicted < real * 2, phase.name


@pytest.mark.parametrize("architecture", [*CAUSAL, *ENCODERS])
def test_a_model_without_weights_has_the_parts_that_it_has_with_them(
    tmp_path: Path, architecture: str
) -> None:
    folder = ModelConfig(path=str(tiny_model_folder(tmp_path, architecture)))
    task = "causal-lm" if architecture in CAUSAL else "sequence-classification"
    model = load_model(folder, task, 2, torch.float32, 0)
    real, found = find_layout(model, new_head(model)), model_shape(folder, task)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.layout == real


@pytest.mark.parametrize(
    ("architecture", "positions", "learned"),
    [
        ("llama", 128, False),
        ("gpt2", 128, True),
        ("opt", 128, True),
        ("bert", 128, True),
        ("roberta", 127, True),  # its table of 128 has one for padding, which is 0
    ],
)
def test_the_longest_example_is_known(
    tmp_path: Path, architecture: str, positions: int, learned: bool
) -> None:
    folder = ModelConfig(path=str(tiny_model_folder(tmp_path, architecture)))
    task = "causal-lm" if architecture in CAUSAL else "sequence-classification"
    shape = model_shape(folder, task)
    assert (shape.positions, shape.learned_positions) == (positions, learned)


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"))
    return model_shape(ModelConfig(path=str(folder)), "causal-lm")


def test_state_on_two_ranks_of_stage_2_in_bf16_is_the_formulas(shape: ModelShape) -> None:
    (phase,) = make_strategy("full", {}, {}).phases(shape.layout, 1)
    found = phase_footprint(config_for(), shape, phase, Load(2, "bf16", "cuda", 10, 10))
    size = shape.parameters
    assert found.state.weights == 2 * size
    assert found.state.steady == 14 * size // 2
    assert found.state.peak == 18 * size // 2
    assert found.certain == 2 * size + 9 * size
    assert found.total == found.certain + found.activations + found.other


def test_stage_3_still_loads_the_whole_model_first(shape: ModelShape) -> None:
    (phase,) = make_strategy("full", {}, {}).phases(shape.layout, 1)
    config = config_for(zero={"stage": 3})
    found = phase_footprint(config, shape, phase, Load(64, "bf16", "cuda", 1, 1))
    assert found.state.weights + found.state.peak < found.whole_weights == found.certain


def test_checkpointing_and_a_higher_lowest_block_need_less(shape: ModelShape) -> None:
    top, *_, bottom = make_strategy("lift", {"group_size": 1}, {}).phases(shape.layout, BLOCKS)
    plain = config_for()
    few, many = (phase_footprint(plain, shape, p, LOAD).activations for p in (top, bottom))
    assert few < many
    recomputed = config_for(model={"path": "unused", "gradient_checkpointing": True})
    assert phase_footprint(recomputed, shape, bottom, LOAD).activations < many
    assert largest_footprint(plain, shape, [top, bottom], LOAD).phase == bottom


def plan_phases(shape: ModelShape, arm: str, **changes: Any) -> list[tuple[str, ...]]:
    plan = plan_trials(config_for(**changes), ModelFacts(BLOCKS))
    return [phase.parameters for phase in possible_phases(plan, shape, arm)]


def test_phases_of_every_structure_that_may_be_searched_are_known(shape: ModelShape) -> None:
    shared = {"learning_rate": 1e-4, "warmup_ratio": 0.0, "max_grad_norm": 1.0}
    space = {"shared": shared, "lift": {"group_size": {"low": 1, "high": BLOCKS}}}
    search = {"space": space, "trials": 16, "replicates": 1}
    assert plan_phases(shape, "full") == [shape.layout.parameters]
    assert len(plan_phases(shape, "lift", arms={"lift": {"group_size": 2}})) == 2
    drawn = plan_phases(shape, "lift", search=search)
    # A sampler has not spoken yet: both ends, four groups of one block and one of four.
    chosen = plan_phases(shape, "lift", search=search | {"sampler": "tpe"})
    assert shape.layout.parameters in drawn and shape.layout.parameters in chosen
    assert len(chosen) == BLOCKS + 1


@pytest.mark.parametrize(
    ("training", "workers", "longest", "tokens"),
    [
        ({"global_batch_size": 64}, 1, 50, 8 * 64),  # as many as 8 of full length
        ({"global_batch_size": 4}, 2, 50, 2 * 50),  # all of a worker's share
        ({"global_batch_size": 64, "micro_batch_size_per_worker": 4}, 2, 50, 4 * 50),
    ],
)
def test_tokens_of_the_largest_pass(
    training: dict[str, int], workers: int, longest: int, tokens: int
) -> None:
    config = config_for(training={"sequence_length": 64, **training})
    assert tokens_per_pass(config, workers, longest) == tokens


def test_a_checkpoint_holds_weights_twice_and_the_optimizer_of_what_trains(
    shape: ModelShape,
) -> None:
    (phase,) = make_strategy("full", {}, {}).phases(shape.layout, 1)
    size = shape.parameters
    assert checkpoint_bytes(config_for(), shape, [phase]) == 2 * 4 * size + 12 * size
    search_only = config_for(confirm={"seeds": 0})
    assert checkpoint_bytes(search_only, shape, [phase]) == 4 * size + 12 * size
    none = config_for(training={"checkpoint_share": 0})
    assert checkpoint_bytes(none, shape, [phase]) == 0
