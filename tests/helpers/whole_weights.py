"""A model's weights, whole, on every rank."""

from __future__ import annotations

from torch import Tensor, nn


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """CPU copies of all parameters, whole, by name; on stage 3 gathered one at a time.

    Call it between engines. On stage 3 every rank must; every rank gets all of it.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id"):
            from deepspeed import zero

            with zero.GatheredParameters([parameter]):
                state[name] = parameter.detach().to("cpu", copy=True)
        else:
            state[name] = parameter.detach().to("cpu", copy=True)
    return state
