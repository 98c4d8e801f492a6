"""Builds a DeepSpeed engine without what each phase would pay for again."""

from __future__ import annotations

import logging
import os
import weakref
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from study.basics.internals import gone

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

log = logging.getLogger(__name__)

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

    with _lean(chunk_numel=bucket, broadcast=model not in _EQUAL_ON_ALL_RANKS):
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config, dist_init_required=False
        )
    _EQUAL_ON_ALL_RANKS.add(model)
    # Stage 0 would copy all gradients at once to reduce them.
    engine.allreduce_gradients = partial(engine.allreduce_gradients, bucket_size=bucket)
    return engine


def _lean(**options: Any) -> AbstractContextManager[None]:
    """DeepSpeed's own way, which takes more memory and time, where its internals have changed."""
    changed = _changed()
    if changed:
        log.warning("This DeepSpeed needs more memory than plans say: %s has changed.", changed)
        return nullcontext()
    from study.training.deepspeed_internals import lean_deepspeed

    return lean_deepspeed(**options)


@cache
def _changed() -> str:
    try:
        from study.training.deepspeed_internals import LEAN
    except ImportError as error:
        return str(error)
    return ", ".join(gone(LEAN))
