"""The DeepSpeed configuration of one phase, as a plain dict; imports no torch, no DeepSpeed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.config.load import TrainingConfig, ZeroConfig
from study.training.data.batches import AUTOMATIC_MICRO_BATCH_SIZE

DEFAULT_MAX_GRAD_NORM = 1.0
_LARGEST_BUCKET = 50_000_000
"""100 MB in bf16: links are busy with far less."""
_SMALLEST_BUCKET = 2**18
"""1 MiB in fp32: below it a collective costs its latency, whatever its size."""
_BUCKETS = 8
_LARGEST_PERSISTENT = 100_000
_SMALLEST_SHARE = 1000


def resolve_micro_batch_size(training: TrainingConfig, world_size: int) -> int:
    """Examples of full length per forward pass on one worker.

    `training.micro_batch_size_per_worker`, or the largest that needs no accumulation, at most
    `AUTOMATIC_MICRO_BATCH_SIZE`; never more than a worker's share of the global batch.
    """
    share = -(-training.global_batch_size // world_size)
    return min(share, training.micro_batch_size_per_worker or AUTOMATIC_MICRO_BATCH_SIZE)


def deepspeed_config(
    training: TrainingConfig,
    zero: ZeroConfig,
    hyperparameters: Mapping[str, Any],
    world_size: int,
    micro_batch_size: int,
    precision: str,
    active_parameters: int,
    parameters: int,
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
        active_parameters: scalars that train in this phase. Buckets are allocated whole, and
            copied once more while they are reduced: they hold an eighth of this.
        parameters: scalars in the model.
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
        "zero_optimization": _zero_section(
            zero, world_size, active_parameters, parameters, device_type
        ),
        # torch's own optimizers work on every stage and need no compiler on the worker.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Progress is reported by the study.
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    return _merge(config, zero.overrides)


def bucket_numel(active_parameters: int) -> int:
    """Scalars reduced, gathered or updated at once. A larger tensor goes alone, uncopied."""
    bucket = min(active_parameters, max(active_parameters // _BUCKETS, _SMALLEST_BUCKET))
    # DeepSpeed wants an even number.
    return min(bucket + bucket % 2, _LARGEST_BUCKET)


def _zero_section(
    zero: ZeroConfig, world_size: int, active_parameters: int, parameters: int, device_type: str
) -> dict[str, Any]:
    bucket = bucket_numel(active_parameters)
    section: dict[str, Any] = {
        "stage": zero.stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # Stage 3 would copy each gradient into a buffer that it never frees.
        "contiguous_gradients": zero.stage != 3,
        # Overlap needs device streams; on CPU it only costs a second bucket.
        "overlap_comm": device_type != "cpu",
    }
    pinned = device_type != "cpu"
    if zero.offload_optimizer == "cpu":
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
    if zero.stage == 3:
        section |= {
            # By default everything below 1e9 scalars stays gathered once it has been used.
            "stage3_prefetch_bucket_size": bucket,
            "stage3_max_live_parameters": 2 * bucket,
            "stage3_max_reuse_distance": 0,
            # Vectors stay whole on every rank, matrices do not.
            "stage3_param_persistence_threshold": min(
                _LARGEST_PERSISTENT, parameters // _SMALLEST_SHARE
            ),
            # fp32 gradients exist for one sub-group at a time; it counts a rank's own share.
            "sub_group_size": max(1, bucket // world_size),
        }
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
