"""Folders that are no model to train are refused before anything runs, as a worker would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from study.basics.errors import ModelError
from study.config.load import ModelConfig
from study.training.model.layout import meta_layout
from study.training.model.load import load_model, meta_model, new_head
from tests.helpers.models import tiny_model_folder

CAUSAL, CLASSES = "causal-lm", "sequence-classification"


def with_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def quantised(folder: Path) -> None:
    with_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def only_adapter_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def compiled(folder: Path) -> None:
    with_weights(folder, lambda w: {f"_orig_mod.{name}": t for name, t in w.items()})


def data_parallel(folder: Path) -> None:
    with_weights(folder, lambda w: {f"module.{name}": t for name, t in w.items()})


def without_a_block(folder: Path) -> None:
    with_weights(folder, lambda w: {n: t for n, t in w.items() if ".layers.1." not in n})


def smaller_vocabulary(folder: Path) -> None:
    with_config(folder, vocab_size=100)


def fewer_blocks(folder: Path) -> None:
    with_config(folder, num_hidden_layers=2)


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (folder / "model.safetensors").write_text(text)


def unknown_positions(folder: Path) -> None:
    with_config(folder, rope_parameters={"rope_type": "zigzag", "rope_theta": 1e4})


def impossible_generation(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"num_return_sequences": 4}')


def broken_generation(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{broken")


def with_images(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())
    config = {"model_type": "gemma3", "text_config": {**text, "model_type": "gemma3_text"}}
    (folder / "config.json").write_text(
        json.dumps({**config, "vision_config": {"hidden_size": 16, "num_hidden_layers": 1}})
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (quantised, r"quantised weights \(bitsandbytes\), which cannot be trained"),
        (adapter, r"holds an adapter .* merge_and_unload"),
        (only_adapter_weights, r"has neither model\.safetensors nor"),
        (pickled, r"pickled weights are not read"),
        (compiled, r"begin with '_orig_mod\.', as those of a compiled model"),
        (data_parallel, r"begin with 'module\.'"),
        (without_a_block, r"has no weights for model\.layers\.1\."),
        (smaller_vocabulary, r"wrong shapes in the weights: (lm_head|model\.embed_tokens)"),
        (fewer_blocks, r"weights that its config\.json leaves out, such as model\.layers\.2\."),
        (pointer, r"model\.safetensors is a pointer of Git LFS"),
        (unknown_positions, r"name, or lack, 'zigzag'"),
        (impossible_generation, r"invalid generation_config\.json \(Greedy methods"),
        (broken_generation, r"invalid generation_config\.json"),
        (with_images, r"is a model for more than text \(gemma3 has vision_config\)"),
    ],
)
@pytest.mark.parametrize("task", [CAUSAL, CLASSES])
def test_a_folder_that_cannot_be_trained(
    tmp_path: Path, spoil: Callable[[Path], None], said: str, task: str
) -> None:
    if spoil is smaller_vocabulary and task == CLASSES:
        said = said.replace("(lm_head|model", "(model")
    folder = tiny_model_folder(tmp_path)
    spoil(folder)
    config = ModelConfig(path=str(folder))
    for refuse in (
        lambda: meta_layout(meta_model(config, task)),
        lambda: load_model(config, task, 2, torch.float32, 0),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            refuse()
        assert "\n" not in str(caught.value) and "LIFT" not in str(caught.value)


def test_weights_apart_that_the_configuration_ties_stay_apart(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, "llama", tie_word_embeddings=False)
    with_config(folder, tie_word_embeddings=True)
    config = ModelConfig(path=str(folder))
    assert not meta_layout(meta_model(config, CAUSAL)).tied
    model = load_model(config, CAUSAL, 0, torch.float32, 0)
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(model.lm_head.weight, stored["lm_head.weight"])
    assert model.config.tie_word_embeddings is False, "whoever reads the saved model ties no more"


def test_half_precision_in_the_configuration_is_not_what_trains(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    with_config(folder, dtype="float16")
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(ModelConfig(path=str(folder)), CAUSAL, 0, dtype, 0)
        assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "llama"])
def test_a_body_alone_gets_a_head(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model_folder(tmp_path, architecture)
    model = load_model(ModelConfig(path=str(folder)), CLASSES, 3, torch.float32, 0)
    assert new_head(model)
