"""Bytes of weights, gradients, master weights and optimizer moments, by formula.

Per rank: N ranks, P parameters of which A train, w bytes per weight (2 in bf16, 4 in fp32).

| stage | weights | gradients, master weights, moments; steady   | for a moment at the step |
|-------|---------|----------------------------------------------|--------------------------|
| 0     | w P     | w A + (4 + 8) A; fp32: the weights are the master, so w A + 8 A | -     |
| 1     | w P     | w A + (4 + 8) A / N                          | + 4 A / N                |
| 2     | w P     | (w + 4 + 8) A / N                            | + 4 A / N                |
| 3     | w P / N | (w + 4 + 8) A / N                            | gather buffers           |

8 is AdamW's two moments in fp32 (4 for SGD's one). Steady is with gradients, as they are between
two micro-batches (after the last one stage 1 has let go of the other ranks'); between steps
DeepSpeed frees them. Buckets hold an eighth of A (small models: up to a MiB).
"""

from __future__ import annotations

from dataclasses import dataclass

_FP32 = 4


@dataclass(frozen=True)
class StateBytes:
    """What one rank needs, in bytes, by the formula above.

    Attributes:
        weights: the model's own, frozen ones included.
        steady: gradients, master weights and moments on the device, between micro-batches.
        peak: the same at the step, buckets and gather buffers apart.
        host: what offloading keeps in host memory instead.
    """

    weights: int
    steady: int
    peak: int
    host: int = 0


def state_bytes(
    parameters: int,
    active: int,
    world_size: int,
    stage: int,
    precision: str,
    *,
    offload: bool = False,
    moments: int = 2,
) -> StateBytes:
    """The formula.

    Args:
        parameters: scalars in the model.
        active: scalars that train.
        stage: ZeRO stage, 0 to 3.
        precision: ``bf16`` or ``fp32``.
        offload: the optimizer is offloaded to the CPU (nothing is on stage 0): master weights,
            moments and this rank's fp32 gradients, and a copy of the weights as they go back.
        moments: fp32 numbers the optimizer keeps per parameter (AdamW 2, SGD 1).
    """
    width = 2 if precision == "bf16" else _FP32
    own_master = 0 if stage == 0 and precision == "fp32" else _FP32
    gradients = width * active / (world_size if stage >= 2 else 1)
    optimizer = (own_master + _FP32 * moments) * active / (world_size if stage else 1)
    at_step = _FP32 * active / world_size if stage in (1, 2) else 0
    weights = round(width * parameters / (world_size if stage == 3 else 1))
    if not (offload and stage):
        steady = gradients + optimizer
        return StateBytes(weights, round(steady), round(steady + at_step))
    host = optimizer + _FP32 * active / world_size + width * active / world_size
    return StateBytes(weights, round(gradients), round(gradients), round(host))
