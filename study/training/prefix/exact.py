"""Proves on one batch that leaving out the prefix changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from study.errors import PrefixCacheError
from study.training.prefix.bypass import BlockBypass, failing_as_cache_error


def check_exact(
    model: Any, bypass: BlockBypass, boundaries: Collection[int], batch: Mapping[str, Tensor]
) -> None:
    """Compare one batch with and without each boundary, in training mode: logits, and gradients
    of the lowest block that trains. Leaves every `requires_grad` to the next engine.

    Dropout in the prefix, noise on the embeddings, or a block that needs more than its hidden
    state all show here. Dropout above the boundary does not: both passes draw the same.

    Raises:
        PrefixCacheError: they differ, or the model fails without its lowest blocks.
    """
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    training = model.training
    wanted = {id(p) for b in boundaries for p in bypass.blocks[b].parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with failing_as_cache_error(), torch.random.fork_rng(devices=devices):
            model.eval()
            with torch.no_grad(), bypass.below_block(max(boundaries), boundaries) as hidden:
                model(**inputs)
            model.train()
            for boundary in boundaries:
                plain = _logits_and_gradients(model, bypass, boundary, inputs)
                with bypass.from_block(boundary, hidden[boundary]):
                    passed = _logits_and_gradients(model, bypass, boundary, inputs)
                _compare(plain, passed, boundary)
    finally:
        model.train(training)


def _logits_and_gradients(
    model: Any, bypass: BlockBypass, boundary: int, inputs: Mapping[str, Tensor]
) -> list[Tensor]:
    torch.manual_seed(0)
    logits = model(**inputs).logits
    block = [p for p in bypass.blocks[boundary].parameters() if p.requires_grad]
    gradients = torch.autograd.grad(logits.float().square().mean(), block, allow_unused=True)
    return [logits.detach(), *(g for g in gradients if g is not None)]


def _compare(plain: Sequence[Tensor], passed: Sequence[Tensor], boundary: int) -> None:
    same = len(plain) == len(passed)
    for one, other in zip(plain, passed, strict=False):
        tolerance = 1e-5 if one.dtype == torch.float32 else 2e-2
        scale = float(one.abs().max())
        same = same and float((one - other).abs().max()) <= tolerance * scale
    if not same:
        raise PrefixCacheError(
            f"results differ when the lowest {boundary} blocks are left out (dropout, noise on the "
            "embeddings, or blocks that need more than a hidden state)"
        )
