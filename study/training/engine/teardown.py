"""Takes a DeepSpeed engine down completely, which `destroy()` alone does not."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine


def tear_down(engine: DeepSpeedEngine) -> None:
    """Leave nothing of `engine` on its model or in DeepSpeed's globals, so that dropping the last
    reference frees it, and dropping the model frees that."""
    model = engine.module
    if engine.zero_optimization_partition_weights():
        # An evaluation leaves parameters on their way in, and the next engine would refuse them.
        engine.optimizer.empty_partition_cache()
    engine.destroy()
    # Each would keep the engine and its optimizer state alive and run in every later forward.
    engine.module_forward_pre_hook.remove()
    engine.module_forward_post_hook.remove()
    for parameter in model.parameters():
        parameter.grad = None
    if engine.zero_optimization_partition_weights():
        _forget_stage_3(model)


def _forget_stage_3(model: nn.Module) -> None:
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import (
        PartitionedParameterCoordinator,
    )

    for parameter in model.parameters():
        vars(parameter).pop("_z3_optimizer", None)
    # The next engine would keep these, and fetch parameters in its backward pass through the
    # coordinator of the old one.
    for module in model.modules():
        for name in ("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt"):
            vars(module).pop(name, None)
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if module is not model]
    # A class-wide cache whose keys hold every coordinator and module it ever saw.
    cached = vars(PartitionedParameterCoordinator)[
        "_PartitionedParameterCoordinator__params_to_release"
    ]
    inspect.getclosurevars(cached).nonlocals["func"].cache_clear()
