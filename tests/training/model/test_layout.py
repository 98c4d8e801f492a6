from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from study.basics.errors import ModelError
from study.config.load import ModelConfig
from study.training.model.layout import find_layout, meta_layout
from study.training.model.load import load_model, new_head
from tests.helpers.models import BLOCKS, CAUSAL, ENCODERS, tiny_model, tiny_model_folder

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 300,
}


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_causal_lm_splits_into_embeddings_blocks_and_top(architecture: str) -> None:
    model = tiny_model(architecture)
    layout = find_layout(model)
    by_name = dict(model.named_parameters())
    assert len(layout.blocks) == BLOCKS
    assert len({len(block) for block in layout.blocks}) == 1
    assert {n: p.numel() for n, p in by_name.items()} == layout.numel
    input_weight = model.get_input_embeddings().weight
    assert any(by_name[n] is input_weight for n in layout.embeddings)
    head = model.get_output_embeddings().weight
    assert layout.tied is (head is input_weight)
    assert any(by_name[n] is head for n in layout.top) is not layout.tied
    assert any("norm" in n or "ln_f" in n for n in layout.top)
    assert all(by_name[n] is head or n.endswith("lm_head.bias") for n in layout.head)
    assert layout.head and set(layout.final_norm) == set(layout.top) - set(layout.head)
    assert any("norm" in n or "ln_f" in n for n in layout.final_norm)


@pytest.mark.parametrize("architecture", [*CAUSAL, *ENCODERS])
def test_a_classifiers_new_head_is_part_of_its_top(tmp_path: Path, architecture: str) -> None:
    config = ModelConfig(path=str(tiny_model_folder(tmp_path, architecture)))
    model = load_model(config, "sequence-classification", 3, torch.float32, 0)
    layout = find_layout(model, new_head(model))
    assert len(layout.blocks) == BLOCKS
    assert layout.new_head
    assert set(layout.new_head) <= set(layout.head) <= set(layout.top)


@pytest.mark.parametrize(
    ("architecture", "head", "final_norm"),
    [
        ("llama", {"score.weight"}, {"model.norm.weight"}),
        ("modernbert",
         {"head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"},
         {"model.final_norm.weight"}),
        # The base model's pooler belongs to the head where it is new, as it is here.
        ("bert",
         {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight",
          "classifier.bias"}, set()),
    ],
)  # fmt: skip
def test_a_classifiers_head_is_known_whether_or_not_it_is_new(
    tmp_path: Path, architecture: str, head: set[str], final_norm: set[str]
) -> None:
    config = ModelConfig(path=str(tiny_model_folder(tmp_path, architecture)))
    model = load_model(config, "sequence-classification", 3, torch.float32, 0)
    layout = find_layout(model, new_head(model))
    assert (set(layout.head), set(layout.final_norm)) == (head, final_norm)
    trained_before = find_layout(model)
    assert set(trained_before.head) == {n for n in head if "pooler" not in n}


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_tied_head_is_the_input_embedding(architecture: str) -> None:
    model = tiny_model(architecture)
    layout = find_layout(model)
    weight = model.get_output_embeddings().weight
    (name,) = [n for n, p in model.named_parameters() if p is weight]
    assert name in layout.head
    assert (name in layout.embeddings) is layout.tied


def test_what_feeds_the_blocks_from_beside_them_counts_as_embeddings(tmp_path: Path) -> None:
    config = ModelConfig(path=str(tiny_model_folder(tmp_path, "deberta-v2")))
    layout = find_layout(load_model(config, "sequence-classification", 2, torch.float32, 0))
    assert "deberta.encoder.rel_embeddings.weight" in layout.embeddings


def test_block_1_does_not_swallow_block_10() -> None:
    layout = find_layout(tiny_model(num_hidden_layers=12))
    assert [len(block) for block in layout.blocks] == [9] * 12
    assert all(".layers.1." in name for name in layout.blocks[1])


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model()
    model.train()
    frozen = model.lm_head.weight.requires_grad_(False)
    before = {n: p.clone() for n, p in model.named_parameters()}
    find_layout(model)
    assert model.training
    assert not frozen.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_albert_is_refused_by_name_because_its_blocks_are_shared() -> None:
    config = AutoConfig.for_model("albert", embedding_size=8, **SMALL)
    with pytest.raises(ModelError, match=r"AlbertForSequenceClassification \(albert\).*shared"):
        find_layout(AutoModelForSequenceClassification.from_config(config))


def test_encoder_decoders_are_refused() -> None:
    config = AutoConfig.for_model(
        "t5", d_model=16, num_layers=2, d_ff=32, num_heads=2, d_kv=8, vocab_size=300
    )
    with pytest.raises(ModelError, match=r"T5Model \(t5\).*two stacks"):
        find_layout(AutoModel.from_config(config))


def test_layerdrop_is_refused() -> None:
    with pytest.raises(ModelError, match=r"opt.*layerdrop"):
        find_layout(tiny_model("opt", layerdrop=0.1))


def test_blocks_that_run_out_of_order_are_refused() -> None:
    model = tiny_model()
    first, second = model.model.layers[1], model.model.layers[2]
    forward = first.forward
    # The second block's output comes from calling the third one inside it.
    first.forward = lambda *args, **kwargs: forward(second(*args, **kwargs), *args[1:], **kwargs)
    with pytest.raises(ModelError, match=r"blocks ran in the order \[0, 2, 1, 2, 3\]"):
        find_layout(model)


def test_two_blocks_that_share_a_weight_are_refused() -> None:
    model = tiny_model()
    model.model.layers[2].mlp = model.model.layers[1].mlp
    with pytest.raises(ModelError, match="blocks 1 and 2 share parameters"):
        find_layout(model)


@pytest.mark.parametrize("architecture", [*CAUSAL, *ENCODERS])
def test_blocks_are_found_without_weights_too(architecture: str) -> None:
    config = tiny_model(architecture).config
    with torch.device("meta"):
        layout = meta_layout(AutoModelForSequenceClassification.from_config(config))
    assert (len(layout.blocks), layout.tied) == (BLOCKS, False)


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_tied_head_is_seen_without_weights_too(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.device("meta"):
        bare = type(model)(model.config)
    layout = meta_layout(bare)
    assert (len(layout.blocks), layout.tied) == (BLOCKS, find_layout(model).tied)
