"""Proves on one batch that what the cache serves changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.basics.errors import PrefixCacheError
from study.training.model.bypass import BlockBypass, failing_as_cache_error, few_logits
from study.training.prefix.rows import padded_hidden, rows_of
from study.training.prefix.store import HiddenRows


def check_exact(
    model: Any,
    bypass: BlockBypass,
    boundaries: Collection[int],
    batch: Mapping[str, Tensor],
    folder: Path,
) -> None:
    """Compare one batch computed whole with the same batch served, at each boundary, in training
    mode: logits where there are tokens, and gradients of the lowest block that trains. Leaves
    every `requires_grad` to the next engine.

    Served is what a trial would be: rows that are written to `folder`, read back and padded with
    zeros. So dropout in the prefix, noise on the embeddings, a block that needs more than its
    hidden state, and one in which padding counts all show here. Dropout above the boundary does
    not: both passes draw the same. Nor may a row depend on the batch that it was computed in.

    Args:
        batch: examples of unequal length, padded on the right.
        folder: on the disk that the rows will be on.

    Raises:
        PrefixCacheError: they differ, or the model fails without its lowest blocks.
        OSError: the folder cannot be written.
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
            hidden = _hidden(model, bypass, boundaries, inputs)
            for example in range(len(inputs["input_ids"])):
                elsewhere = _hidden(model, bypass, boundaries, _other_company(inputs, example))
                for boundary in boundaries:
                    length = _lengths(inputs)[example]
                    own = (found[boundary][example, :length] for found in (hidden, elsewhere))
                    _require(_same(*([tensor] for tensor in own)), boundary)
            served = {b: _kept_and_read(hidden[b], inputs, folder) for b in boundaries}
            model.train()
            for boundary in boundaries:
                plain = _logits_and_gradients(model, bypass, boundary, inputs)
                with bypass.from_block(boundary, served[boundary]):
                    passed = _logits_and_gradients(model, bypass, boundary, inputs)
                _require(all(map(_same, plain, passed)), boundary)
    finally:
        model.train(training)


def _hidden(
    model: Any, bypass: BlockBypass, boundaries: Collection[int], inputs: Mapping[str, Tensor]
) -> dict[int, Tensor]:
    with torch.no_grad(), bypass.below_block(max(boundaries), boundaries) as found:
        model(**inputs, **few_logits(model))
    if any(hidden.shape[:2] != inputs["input_ids"].shape for hidden in found.values()):
        raise PrefixCacheError("its blocks cannot be left out (they drop tokens on the way)")
    return found


def _other_company(inputs: Mapping[str, Tensor], example: int) -> dict[str, Tensor]:
    """A batch of the same shape in which only this example's own tokens are the same."""
    ids, mask = inputs["input_ids"].clone(), inputs["attention_mask"].bool()
    for place, length in enumerate(_lengths(inputs)):
        if place != example:
            ids[place, :length] = ids[place, :length].flip(0)
    own = ids[example, 0]
    ids[~mask] = own
    return {**inputs, "input_ids": ids}


def _kept_and_read(hidden: Tensor, inputs: Mapping[str, Tensor], folder: Path) -> Tensor:
    """A batch's hidden states as they come back from the disk."""
    lengths, token_bytes = _lengths(inputs), hidden.shape[-1] * hidden.dtype.itemsize
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        kept = HiddenRows(Path(scratch) / "sample", offsets, token_bytes)
        try:
            for example, row in enumerate(rows_of(hidden, lengths)):
                kept.write(example, row)
            read = [kept.read(example) for example in range(len(lengths))]
            rows = [row for row in read if row is not None]
            if len(rows) < len(lengths):
                raise PrefixCacheError(f"hidden states written to {folder} do not come back")
            tokens = hidden.shape[1]
            return padded_hidden(rows, tokens, token_bytes, hidden.dtype).to(hidden.device)
        finally:
            kept.close()


def _lengths(inputs: Mapping[str, Tensor]) -> list[int]:
    return [int(length) for length in inputs["attention_mask"].sum(dim=1)]


def _logits_and_gradients(
    model: Any, bypass: BlockBypass, boundary: int, inputs: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    logits = model(**inputs).logits
    tokens = inputs["attention_mask"].bool()
    if logits.shape[:2] == tokens.shape:  # else one row for each example
        logits = logits[tokens]
    block = [p for p in bypass.blocks[boundary].parameters() if p.requires_grad]
    gradients = torch.autograd.grad(logits.float().square().mean(), block, allow_unused=True)
    return [logits.detach()], [g for g in gradients if g is not None]


def _same(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Up to rounding, beside the largest value of them all: some gradients are rounding alone."""
    if len(ones) != len(others) or not ones:
        return len(ones) == len(others)
    tolerance = 1e-5 if ones[0].dtype == torch.float32 else 2e-2
    limit = tolerance * max(float(one.abs().max()) for one in ones)
    differences = [float((a - b).abs().max()) for a, b in zip(ones, others, strict=True)]
    return all(difference <= limit for difference in differences)


def _require(same: bool, boundary: int) -> None:
    if not same:
        raise PrefixCacheError(
            f"results differ when the lowest {boundary} blocks are left out (dropout, noise on the "
            "embeddings, blocks that need more than a hidden state, or in which padding counts)"
        )
