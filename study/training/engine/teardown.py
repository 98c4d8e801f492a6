"""Takes a DeepSpeed engine down completely, which `destroy()` alone does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        from study.training.deepspeed_internals import forget_stage_3

        forget_stage_3(model)
