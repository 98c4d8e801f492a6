"""The torch optimizer that DeepSpeed wraps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from study.config.load import TrainingConfig

_FACTOR = "factor"


def make_optimizer(
    parameters: Sequence[nn.Parameter],
    factors: Sequence[float],
    training: TrainingConfig,
    hyperparameters: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """AdamW or SGD over `parameters`; vectors (biases, norms) do not decay.

    torch's fused AdamW needs no compiler, neither on GPUs nor for states offloaded to the CPU.
    `set_learning_rate` goes before every step.

    Args:
        factors: of each parameter's learning rate.
    """
    decay = float(hyperparameters.get("weight_decay", training.weight_decay))
    # ZeRO cuts each group into partitions of its own: no more of them than differ.
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, factor in zip(parameters, factors, strict=True):
        kind = factor, decay if len(parameter_shape(parameter)) > 1 else 0.0
        members.setdefault(kind, []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": members[factor, value], "weight_decay": value, _FACTOR: factor}
        for factor, value in sorted(members, reverse=True)
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=training.momentum)
    betas = (training.betas[0], float(hyperparameters.get("beta2", training.betas[1])))
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=training.epsilon, fused=True)


def set_learning_rate(groups: Iterable[dict[str, Any]], rate: float) -> None:
    """Set the next step's rate, times each one's factor, in an optimizer's parameter groups."""
    for group in groups:
        group["lr"] = rate * group[_FACTOR]


def parameter_shape(parameter: nn.Parameter) -> torch.Size:
    """Shape of the whole parameter, also while ZeRO-3 holds a shard of it."""
    return getattr(parameter, "ds_shape", parameter.shape)


def parameter_numel(parameter: nn.Parameter) -> int:
    """Scalars in the whole parameter, also while ZeRO-3 holds a shard of it."""
    return parameter_shape(parameter).numel()
