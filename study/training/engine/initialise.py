"""Builds a DeepSpeed engine without what each phase would pay for again."""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

_EQUAL_ON_ALL_RANKS: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Models that an engine has broadcast once."""


def initialise(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    device: torch.device,
    bucket: int,
) -> DeepSpeedEngine:
    """DeepSpeed's engine over what `optimizer` updates, in the existing process group.

    Args:
        bucket: scalars reduced or updated at once.
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:
        torch.cuda.set_device(device)
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    import deepspeed

    from study.training.engine.lean import lean_deepspeed

    with lean_deepspeed(chunk_numel=bucket, broadcast=model not in _EQUAL_ON_ALL_RANKS):
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config, dist_init_required=False
        )
    _EQUAL_ON_ALL_RANKS.add(model)
    # Stage 0 would copy all gradients at once to reduce them.
    engine.allreduce_gradients = partial(engine.allreduce_gradients, bucket_size=bucket)
    return engine
