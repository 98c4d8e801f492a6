"""Says when it is dropout that keeps hidden states from being kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from study.training.model.layout import find_blocks


def dropout_reason(
    model: PreTrainedModel, sample: Mapping[str, Tensor], boundary: int
) -> str | None:
    """Why the blocks below `boundary` give other hidden states in every pass, and what mends it;
    None where they do not, or where it is not the configuration's dropout.

    Args:
        model: whole; its mode and the random state are left as they are.
        sample: a small batch, on the model's device.
    """
    rates = {
        name: value
        for name, value in model.config.to_dict().items()
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float) and value > 0
    }
    if not rates or not _differs_from_pass_to_pass(model, sample, boundary):
        return None
    named = ", ".join(f"{name} {value:g}" for name, value in rates.items())
    return (
        f"dropout changes the hidden states in every pass ({named}); `model: {{dropout: 0}}` turns "
        "it off"
    )


def _differs_from_pass_to_pass(
    model: PreTrainedModel, sample: Mapping[str, Tensor], boundary: int
) -> bool:
    found: list[Tensor] = []

    def keep(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])

    _, blocks = find_blocks(model)
    hook = blocks[boundary].register_forward_pre_hook(keep, with_kwargs=True)
    training, devices = model.training, [model.device] if model.device.type == "cuda" else []
    model.train()
    try:
        with hook, torch.no_grad(), torch.random.fork_rng(devices=devices):
            for seed in (0, 1):
                torch.manual_seed(seed)
                model(**sample)
    finally:
        model.train(training)
    return not torch.equal(*found)
