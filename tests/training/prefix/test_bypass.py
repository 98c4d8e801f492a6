"""Leaving out the lowest blocks changes no bit of what is above, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from study.basics.errors import PrefixCacheError
from study.config.load import ModelConfig
from study.training.model.bypass import BlockBypass
from study.training.model.load import load_model
from study.training.prefix.dropout import dropout_reason
from study.training.prefix.exact import check_exact
from study.training.prefix.store import HiddenRows
from tests.helpers.models import (
    ALL_ARCHITECTURES,
    BLOCKS,
    ENCODERS,
    telling,
    tiny_model,
    tiny_model_folder,
)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PreTrainedModel]:
    def make(architecture: str) -> PreTrainedModel:
        folder = tiny_model_folder(tmp_path_factory.mktemp("model"), architecture)
        task = "sequence-classification" if architecture in ENCODERS else "causal-lm"
        return load_model(ModelConfig(path=str(folder)), task, 3, torch.float32, 0)

    return make


def padded_batch(longest: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 261, (3, longest), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((longest, 7, 3)):
        mask[row, length:] = 0
        ids[row, length:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def hidden_without_padding(
    model: PreTrainedModel, bypass: BlockBypass, batch: dict[str, Tensor], boundary: int
) -> Tensor:
    with torch.no_grad(), bypass.below_block(boundary, [boundary]) as found:
        model(**batch)
    # What comes from the disk has zeros where the padding was.
    return found[boundary] * batch["attention_mask"][..., None]


def loss_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    logits = model(**batch).logits
    return (logits * batch["attention_mask"][..., None] if logits.dim() == 3 else logits).sum()


def same(one: Tensor, other: Tensor, architecture: str) -> bool:
    if architecture == "mixtral":  # padding is routed to experts too, and shares their batches
        return torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    return torch.equal(one, other)


@pytest.mark.parametrize("boundary", range(1, BLOCKS))
@pytest.mark.parametrize("architecture", telling(ALL_ARCHITECTURES))
def test_loss_and_gradients_are_bit_identical_without_the_lowest_blocks(
    model_of: Callable[[str], PreTrainedModel], architecture: str, boundary: int
) -> None:
    model, batch = model_of(architecture), padded_batch()
    model.eval()
    bypass = BlockBypass(model, batch)
    for block in bypass.blocks[:boundary]:
        block.requires_grad_(False)
    hidden = hidden_without_padding(model, bypass, batch, boundary)
    model.train()
    above = [p for block in bypass.blocks[boundary:] for p in block.parameters()]
    plain = loss_of(model, batch)
    expected = torch.autograd.grad(plain, above, allow_unused=True)
    with bypass.from_block(boundary, hidden):
        passed = loss_of(model, batch)
        found = torch.autograd.grad(passed, above, allow_unused=True)
    assert same(plain, passed, architecture)
    for one, other in zip(expected, found, strict=True):
        assert (one is None and other is None) or same(one, other, architecture)


@pytest.mark.parametrize("architecture", telling(ALL_ARCHITECTURES))
def test_the_check_accepts_every_architecture_and_leaves_the_model_whole(
    model_of: Callable[[str], PreTrainedModel], architecture: str, tmp_path: Path
) -> None:
    model, batch = model_of(architecture), padded_batch()
    before = loss_of(model.eval(), batch)
    bypass = BlockBypass(model, batch)
    check_exact(model, bypass, range(1, BLOCKS), batch, tmp_path)
    assert torch.equal(loss_of(model, batch), before)
    assert all("forward" not in vars(block) for block in bypass.blocks)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in bypass.blocks)


def test_the_left_out_blocks_are_not_run() -> None:
    model, batch = tiny_model(), padded_batch()
    bypass = BlockBypass(model.eval(), batch)
    hidden = hidden_without_padding(model, bypass, batch, 3)
    for block in bypass.blocks[:3]:
        for parameter in block.parameters():
            parameter.data.fill_(float("nan"))
    with bypass.from_block(3, hidden):
        assert torch.isfinite(model(**batch).logits).all()
    assert not torch.isfinite(model(**batch).logits).all()


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model, batch = tiny_model(), padded_batch()
    bypass = BlockBypass(model.eval(), batch)
    hidden = hidden_without_padding(model, bypass, batch, 2)
    model.train()
    above = [p for block in bypass.blocks[2:] for p in block.parameters()]
    results = []
    for _ in range(2):
        with bypass.from_block(2, hidden):
            results.append(torch.autograd.grad(loss_of(model, batch), above))
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [({"resid_pdrop": 0.1}, "gpt2"), ({"attention_dropout": 0.1}, "llama")],
)
def test_dropout_in_the_prefix_is_refused(
    overrides: dict[str, float], name: str, tmp_path: Path
) -> None:
    model, batch = tiny_model(name), padded_batch()
    for key, value in overrides.items():
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = value
            elif hasattr(module, key):
                setattr(module, key, value)
    bypass = BlockBypass(model.eval(), batch)
    with pytest.raises(PrefixCacheError, match="results differ"):
        check_exact(model, bypass, [2], batch, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [({"resid_pdrop": 0.1}, "gpt2"), ({"attention_dropout": 0.1}, "llama")],
)
def test_dropout_is_named_where_it_is_the_reason(overrides: dict[str, float], name: str) -> None:
    model = tiny_model(name).eval()
    for key, value in overrides.items():
        setattr(model.config, key, value)
    made = type(model)(model.config).eval()
    before = torch.get_rng_state()
    told = dropout_reason(made, padded_batch(), 2)
    assert told is not None and f"{next(iter(overrides))} 0.1" in told
    assert not made.training and torch.equal(torch.get_rng_state(), before)
    # Configured, and without effect on what the blocks hand on.
    model.config.classifier_dropout = 0.5
    for key in overrides:
        setattr(model.config, key, 0.0)
    assert dropout_reason(model, padded_batch(), 2) is None
    assert dropout_reason(tiny_model(name), padded_batch(), 2) is None


def test_dropout_above_the_boundary_is_not(tmp_path: Path) -> None:
    model, batch = tiny_model("gpt2"), padded_batch()
    for block in model.transformer.h[2:]:
        for module in block.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
    check_exact(model, BlockBypass(model.eval(), batch), [2], batch, tmp_path)
    with pytest.raises(PrefixCacheError, match="lowest 3 blocks"):
        check_exact(model, BlockBypass(model.eval(), batch), [2, 3], batch, tmp_path)


def test_noise_on_the_embeddings_is_refused(tmp_path: Path) -> None:
    model, batch = tiny_model(), padded_batch()

    def noise(module: torch.nn.Module, _args: object, output: Tensor) -> Tensor:
        return output + 0.01 * torch.randn_like(output) if module.training else output

    model.get_input_embeddings().register_forward_hook(noise)
    bypass = BlockBypass(model.eval(), batch)
    with pytest.raises(PrefixCacheError, match="results differ"):
        check_exact(model, bypass, [1], batch, tmp_path)


PADDING_COUNTS = {
    "convbert": {"embedding_size": 16, "head_ratio": 1, "conv_kernel_size": 9},
    "fnet": {},
}
"""Encoders that convolve over, or transform, whole rows of tokens."""


@pytest.mark.parametrize("architecture", PADDING_COUNTS)
def test_blocks_in_which_padding_counts_are_refused(architecture: str, tmp_path: Path) -> None:
    options = {**ENCODERS["bert"], **PADDING_COUNTS[architecture]}
    config = AutoConfig.for_model(
        architecture, vocab_size=261, pad_token_id=0,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options,
    )  # fmt: skip
    model, batch = AutoModelForSequenceClassification.from_config(config).eval(), padded_batch()
    bypass = BlockBypass(model, batch)
    # They are right to be: what would be served gives another loss.
    hidden = hidden_without_padding(model, bypass, batch, 2)
    with bypass.from_block(2, hidden):
        served = loss_of(model, batch)
    assert not torch.allclose(served, loss_of(model, batch), rtol=1e-5)
    with pytest.raises(PrefixCacheError, match="in which padding counts"):
        check_exact(model, bypass, [2], batch, tmp_path)


def test_rows_that_depend_on_the_batch_they_were_computed_in_are_refused(tmp_path: Path) -> None:
    model, batch = tiny_model(), padded_batch()
    # As a norm over the batch does. What is above has its mask, so no served row looks wrong.
    model.model.layers[0].register_forward_hook(lambda _m, _a, out: out + 0.1 * out.mean((0, 1)))
    bypass = BlockBypass(model.eval(), batch)
    with pytest.raises(PrefixCacheError, match="results differ when the lowest 2"):
        check_exact(model, bypass, [2], batch, tmp_path)


def test_what_is_served_comes_from_the_disk(tmp_path: Path) -> None:
    model, batch = tiny_model(), padded_batch()
    bypass = BlockBypass(model.eval(), batch)
    read = HiddenRows.read

    def damaged(rows: HiddenRows, example: int) -> np.ndarray | None:
        row = read(rows, example)
        return None if row is None else row[::-1].copy()

    for broken in (lambda *_: None, damaged):
        with patch.object(HiddenRows, "read", broken), pytest.raises(PrefixCacheError):
            check_exact(model, bypass, [2], batch, tmp_path)
    check_exact(model, bypass, [2], batch, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is left there"


def test_a_block_that_hands_on_more_than_a_hidden_state_is_refused() -> None:
    model, batch = tiny_model(), padded_batch()
    block = model.model.layers[0]
    inner = block.forward
    block.forward = lambda *args, **kwargs: (inner(*args, **kwargs), torch.ones(1))
    model.model.layers[1].forward = lambda *args, **kwargs: args[0][0]
    with pytest.raises(PrefixCacheError, match="hands on more than"):
        BlockBypass(model.eval(), batch)


def test_a_second_stream_from_a_lower_block_is_refused(tmp_path: Path) -> None:
    model, batch = tiny_model(), padded_batch()
    memory: list[Tensor] = []
    low, high = model.model.layers[0], model.model.layers[3]
    low.register_forward_hook(lambda _m, _a, output: memory.append(output))
    high.register_forward_hook(lambda _m, _a, output: output + memory[-1])
    bypass = BlockBypass(model.eval(), batch)
    with pytest.raises(PrefixCacheError, match="results differ"):
        check_exact(model, bypass, [2], batch, tmp_path)


@pytest.mark.parametrize("boundary", [1, 2, 3])
def test_blocks_that_share_keys_with_lower_ones_are_refused(boundary: int, tmp_path: Path) -> None:
    model, batch = tiny_model("gemma4_text", num_kv_shared_layers=2), padded_batch()
    bypass = BlockBypass(model.eval(), batch)
    before = loss_of(model, batch)
    with pytest.raises(PrefixCacheError, match="cannot be left out"):
        check_exact(model, bypass, [boundary], batch, tmp_path)
    assert torch.equal(loss_of(model, batch), before)


def test_any_failure_of_the_model_is_a_refusal_but_not_one_of_memory() -> None:
    model, batch = tiny_model(), padded_batch()

    def fail(error: type[Exception]) -> None:
        def raise_it(*_args: object) -> None:
            raise error("of the model's own")

        handle = model.model.layers[1].register_forward_pre_hook(raise_it)
        try:
            BlockBypass(model.eval(), batch)
        finally:
            handle.remove()

    with pytest.raises(PrefixCacheError, match="AttributeError: of the model's own"):
        fail(AttributeError)
    for memory in (torch.OutOfMemoryError, MemoryError):
        with pytest.raises(memory):
            fail(memory)
