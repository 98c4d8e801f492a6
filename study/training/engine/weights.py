"""Reads and writes a model's weights whatever the ZeRO stage, without unpickling anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn


def held_weights(model: nn.Module, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """CPU copies of what this rank holds of each parameter: its shard on stage 3, else all of it.

    No communication, so it may be called at any time, also inside a phase right after an
    evaluation; `restore_weights` on the same rank takes it back.

    Args:
        names: only these parameters (those that trained so far, say); None: all of them.
    """
    return {
        name: held(parameter).detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, parameter in model.named_parameters()
        if names is None or name in names
    }


@torch.no_grad()
def restore_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put back what `held_weights` took. A live engine has master weights of its own and writes
    them over these at its next step: put those back too, or train no more with it."""
    for name, parameter in model.named_parameters():
        if name not in weights:
            continue
        if hasattr(parameter, "ds_id"):
            # A small parameter may lie here whole as well; drop that copy, or it would be used.
            parameter.partition()  # type: ignore[attr-defined]
        held(parameter).copy_(weights[name])


@torch.no_grad()
def leave_buffers(model: nn.Module, active: Collection[str]) -> None:
    """Copy the frozen parameters out of flat buffers of an earlier engine that the `active` ones
    are about to leave for a new engine's: a single view keeps all of a buffer alive."""
    parameters = dict(model.named_parameters())
    left = {held(parameters[name]).untyped_storage().data_ptr() for name in active}
    for name, parameter in parameters.items():
        part = held(parameter)
        storage = part.untyped_storage()
        if name in active or storage.data_ptr() not in left or storage.nbytes() == part.nbytes:
            continue
        copy = part.clone()
        part.data = copy.pin_memory() if part.is_pinned() else copy


def held(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of a parameter."""
    return getattr(parameter, "ds_tensor", parameter)
