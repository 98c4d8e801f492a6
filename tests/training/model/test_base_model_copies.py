"""A model handed out again is the model that was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from study.config.load import StudyConfig
from study.training.model.base_model import BaseModel
from study.training.model.load import new_head
from study.training.placement import Placement
from tests.helpers.models import CAUSAL, ENCODERS, tiny_model_folder

ALONE = Placement(torch.device("cpu"), 0, 1)


def base_model(folder: Path, architecture: str, keep: bool = True) -> BaseModel:
    causal = architecture in CAUSAL
    config = StudyConfig.model_validate(
        {
            "name": "base",
            "model": {"path": str(tiny_model_folder(folder, architecture)), "dropout": 0.0},
            "task": "causal-lm" if causal else "sequence-classification",
            "data": {"train": "unused"},
            "dataset_sizes": [8],
            "arms": ["full"],
        }
    )
    return BaseModel(config, None if causal else 3, ALONE, keep)


def state(model: PreTrainedModel) -> dict[str, Any]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 19).reshape(2, 8)).logits


@pytest.mark.parametrize("architecture", [*CAUSAL, *ENCODERS])
def test_a_second_model_is_as_the_first_was_before_it_trained(
    tmp_path: Path, architecture: str
) -> None:
    source = base_model(tmp_path, architecture)
    first = source.fresh(seed=1)
    before = {name: tensor.clone() for name, tensor in state(first).items()}
    answers = logits(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
            parameter.requires_grad_(False)
    second = source.fresh(seed=1)
    assert state(second).keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(second).items())
    assert torch.equal(logits(second), answers)
    assert all(p.requires_grad for p in second.parameters())
    assert new_head(second) == new_head(first)
    assert second.training == base_model(tmp_path, architecture, keep=False).fresh(1).training


@pytest.mark.parametrize("architecture", ["qwen3", "gemma"])
def test_a_tied_head_stays_tied(tmp_path: Path, architecture: str) -> None:
    source = base_model(tmp_path, architecture)
    for _ in range(2):
        model = source.fresh(seed=1)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_new_head_is_every_seeds_own(tmp_path: Path) -> None:
    source = base_model(tmp_path, "bert")
    one, other, again = (source.fresh(seed) for seed in (1, 2, 1))
    (name, *_) = [n for n in new_head(one) if n.endswith("weight")]
    assert torch.equal(state(one)[name], state(again)[name])
    assert not torch.equal(state(one)[name], state(other)[name])


def test_files_are_read_once(tmp_path: Path) -> None:
    source = base_model(tmp_path, "llama")
    source.fresh(seed=1)
    for file in (tmp_path / "tiny-llama-0").glob("*"):
        file.unlink()
    source.fresh(seed=2)
