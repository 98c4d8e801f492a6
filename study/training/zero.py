"""The DeepSpeed configuration of one phase, as a plain dict; imports no torch, no DeepSpeed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.config import TrainingConfig, ZeroConfig

DEFAULT_MAX_GRAD_NORM = 1.0
_LARGEST_BUCKET = 500_000_000
_LARGEST_PREFETCH = 50_000_000
_LARGEST_AUTOMATIC_MICRO_BATCH = 8


def resolve_micro_batch_size(training: TrainingConfig, world_size: int) -> int:
    """Examples per forward pass on one worker.

    `training.micro_batch_size_per_worker`, or the largest that needs no accumulation, at most 8;
    never more than a worker's share of the global batch.
    """
    share = -(-training.global_batch_size // world_size)
    return min(share, training.micro_batch_size_per_worker or _LARGEST_AUTOMATIC_MICRO_BATCH)


def deepspeed_config(
    training: TrainingConfig,
    zero: ZeroConfig,
    hyperparameters: Mapping[str, Any],
    world_size: int,
    micro_batch_size: int,
    precision: str,
    active_parameters: int,
    device_type: str,
) -> dict[str, Any]:
    """What `deepspeed.initialize` is given for one phase.

    No optimizer and no scheduler section: the engine gets a torch optimizer and a learning rate
    per step.

    Args:
        hyperparameters: of the trial; ``max_grad_norm`` is used (default 1).
        world_size: data-parallel workers.
        micro_batch_size: examples per forward pass on one worker.
        precision: ``bf16`` or ``fp32``.
        active_parameters: scalars that train in this phase. Buckets are allocated whole, whatever
            trains, so a bucket larger than this would eat what a small phase saves.
        device_type: ``cuda`` or ``cpu``.

    Returns:
        The configuration, `zero.overrides` merged last (nested sections key by key).
    """
    accumulation = -(-training.global_batch_size // (micro_batch_size * world_size))
    config: dict[str, Any] = {
        "train_batch_size": micro_batch_size * accumulation * world_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": float(hyperparameters.get("max_grad_norm", DEFAULT_MAX_GRAD_NORM)),
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": _zero_section(zero, active_parameters, device_type),
        # torch's own optimizers work on every stage and need no compiler on the worker.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Progress is reported by the study.
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    return _merge(config, zero.overrides)


def _zero_section(zero: ZeroConfig, active_parameters: int, device_type: str) -> dict[str, Any]:
    # DeepSpeed wants an even number.
    bucket = min(active_parameters + active_parameters % 2, _LARGEST_BUCKET)
    section: dict[str, Any] = {
        "stage": zero.stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "contiguous_gradients": True,
        # Overlap needs device streams; on CPU it only costs a second bucket.
        "overlap_comm": device_type != "cpu",
    }
    pinned = device_type != "cpu"
    if zero.offload_optimizer == "cpu":
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
    if zero.stage == 3:
        section["stage3_prefetch_bucket_size"] = min(bucket, _LARGEST_PREFETCH)
        if zero.offload_parameters == "cpu":
            section["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    return section


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged
