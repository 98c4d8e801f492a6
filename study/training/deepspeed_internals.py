"""What is used of DeepSpeed that its documentation does not promise, as seen in 0.19.8: to make no
copies of gradients, states and weights, and to leave nothing behind.

Same numbers to the last digit; only what is alive at the same time differs. Imports DeepSpeed:
import it inside a function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.runtime import compiler
from deepspeed.runtime import engine as deepspeed_engine
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.utils import get_global_norm, get_weight_norm, is_invalid_grad_norm
from deepspeed.runtime.zero import parameter_offload
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor, nn

_ENGINE = "deepspeed.runtime.engine"
_STAGE_0 = "deepspeed.runtime.fp16.unfused_optimizer.FP16_UnfusedOptimizer"
_STAGE_2 = "deepspeed.runtime.zero.stage_1_and_2.DeepSpeedZeroOptimizer"
_STAGE_3 = "deepspeed.runtime.zero.stage3.DeepSpeedZeroOptimizer_Stage3"
_FETCHING = "deepspeed.runtime.zero.partitioned_param_coordinator.PartitionedParameterCoordinator"
_SHARDS = "deepspeed.runtime.zero.partition_parameters"

LEAN = {
    f"{_ENGINE}.FP16_UnfusedOptimizer": "where stage 0 in bf16 gets its optimizer from",
    f"{_ENGINE}.DeepSpeedZeroOptimizer": "where stages 1 and 2 get theirs from",
    f"{_ENGINE}.DeepSpeedEngine._broadcast_model": "left out once a model's ranks are equal",
    f"{_STAGE_0}.initialize_optimizer_states": "not stepped on zeros",
    f"{_STAGE_0}.step": "a few tensors at a time",
    f"{_STAGE_0}._skip_invalid_grad_norm": "what a gradient that is not finite ends in",
    f"{_STAGE_0}._update_scale": "part of a step",
    f"{_STAGE_0}.unscale_and_clip_grads": "part of a step",
    f"{_STAGE_0}:overflow_checker": "part of a step",
    f"{_STAGE_0}:fp16_groups": "the weights of the model",
    f"{_STAGE_0}:fp32_groups": "their masters",
    f"{_STAGE_2}.initialize_optimizer_states": "no gradient of zeros for each partition",
    f"{_STAGE_2}.copy_grads_in_partition": "to see the gradients when there are most of them",
    f"{_STAGE_2}._get_preflattened_grad_partition": "flat in fp32 at once, not in bf16 before",
    f"{_STAGE_2}:grads_in_partition": "room for all of them",
    f"{_STAGE_2}:averaged_gradients": "this rank's part, by group",
    f"{_STAGE_2}:all_grad_tensors": "this rank's part, by group",
    f"{_STAGE_2}:single_partition_of_fp32_groups": "this rank's masters",
    f"{_STAGE_2}:cpu_offload": "whose states the original makes",
    "deepspeed.runtime.utils.get_global_norm": "of all gradients",
    "deepspeed.runtime.utils.get_weight_norm": "of one group's gradients",
    "deepspeed.runtime.utils.is_invalid_grad_norm": "whether a step is skipped",
}
"""What `lean_deepspeed` builds on; without one of these DeepSpeed works as it is."""

USED = LEAN | {
    f"{_ENGINE}.DeepSpeedEngine.allreduce_gradients": "in buckets, also on stage 0",
    f"{_ENGINE}.DeepSpeedEngine:module_forward_pre_hook": "taken off: it keeps the engine alive",
    f"{_ENGINE}.DeepSpeedEngine:module_forward_post_hook": "taken off: it keeps the engine alive",
    f"{_ENGINE}.DeepSpeedEngine:basic_optimizer": "whose state is counted",
    f"{_STAGE_3}.empty_partition_cache": "parameters on their way in after an evaluation",
    f"{_STAGE_3}:fp32_partitioned_groups_flat": "this rank's masters",
    f"{_STAGE_3}:grad_partitions_flat_buffer": "this rank's gradients",
    f"{_SHARDS}:ds_id": "which parameters stage 3 holds in shards",
    f"{_SHARDS}:ds_tensor": "this rank's shard of a parameter",
    f"{_SHARDS}:partition": "drops a copy that lies here whole",
    "deepspeed.utils.mixed_precision_linkage:_hp_mapping": "this rank's part of a master",
    "deepspeed.runtime.zero.parameter_offload.FWD_MODULE_STACK": "keeps the last model alive",
    f"{_FETCHING}._PartitionedParameterCoordinator__params_to_release": "a cache of every model",
    "deepspeed.runtime.compiler.compile": "not called for the kernels of an unused optimizer",
    "deepspeed.ops.__compatible_ops__": "whether the CPU communication op can be compiled",
}
"""Dotted names, an attribute of instances after a colon, and what each is used for."""


class LeanStage0(FP16_UnfusedOptimizer):
    """Stage 0 in bf16. The original turns all gradients into fp32 before it updates anything: four
    bytes per active parameter more than the gradients themselves."""

    chunk_numel: int

    def initialize_optimizer_states(self) -> None:
        """The original steps on zeros, which takes all gradients in fp32 and leaves Adam's step
        count one ahead. The first real step makes the states."""

    def step(self, closure: Callable[[], None] | None = None) -> bool:
        """Update a few tensors at a time. True if the gradients were not finite."""
        self.overflow = self.overflow_checker.check()
        if self.overflow:
            return bool(self._skip_invalid_grad_norm())
        gradients = [[p.grad for p in g if p.grad is not None] for g in self.fp16_groups]
        self._global_grad_norm = get_global_norm([get_weight_norm(g) for g in gradients])
        del gradients
        if is_invalid_grad_norm(self._global_grad_norm):
            return bool(self._skip_invalid_grad_norm())
        self._update_scale(False)
        factor = 1.0 / self.unscale_and_clip_grads(self._global_grad_norm, apply_scale=False)
        for chunk in self._chunks():
            for half, master in chunk:
                gradient = half.grad
                half.grad = None
                master.grad = torch.zeros_like(master) if gradient is None else gradient.float()
                master.grad.mul_(factor)
            # What has no gradient is passed over.
            self.optimizer.step()
            for half, master in chunk:
                master.grad = None
                half.data.copy_(master.data)
        return False

    def _chunks(self) -> Iterator[list[tuple[nn.Parameter, Tensor]]]:
        chunk: list[tuple[nn.Parameter, Tensor]] = []
        numel = 0
        for halves, masters in zip(self.fp16_groups, self.fp32_groups, strict=True):
            for pair in zip(halves, masters, strict=True):
                if chunk and numel + pair[1].numel() > self.chunk_numel:
                    yield chunk
                    chunk, numel = [], 0
                chunk.append(pair)
                numel += pair[1].numel()
        yield chunk


class LeanZero(DeepSpeedZeroOptimizer):
    """Stages 1 and 2. The original lays this rank's gradients out flat in bf16 while they are
    still there, and only then turns them into fp32.

    Attributes:
        on_new_gradients: called when a further copy of gradients has been made and those that it
            was made from are still there.
    """

    on_new_gradients: Callable[[], object] = staticmethod(lambda: None)

    def initialize_optimizer_states(self) -> None:
        """The original allocates a zero gradient per partition and drops it again."""
        if self.cpu_offload:
            super().initialize_optimizer_states()

    def copy_grads_in_partition(self, param: nn.Parameter, group_idx: int | None = None) -> None:
        first = self.grads_in_partition is None
        super().copy_grads_in_partition(param, group_idx)
        if first and self.grads_in_partition is not None:  # room for all of them, made at once
            self.on_new_gradients()

    def _get_preflattened_grad_partition(self, group_idx: int) -> Tensor | None:
        flat = super()._get_preflattened_grad_partition(group_idx)
        gradients = self.averaged_gradients[group_idx]
        if flat is not None or gradients is None:
            return flat
        master = self.single_partition_of_fp32_groups[group_idx]
        flat = torch.zeros_like(master, requires_grad=False)
        start = 0
        for gradient in gradients:
            flat[start : start + gradient.numel()].copy_(gradient.reshape(-1))
            start += gradient.numel()
        master.grad = flat
        self.on_new_gradients()
        return flat


@contextmanager
def lean_deepspeed(chunk_numel: int, *, broadcast: bool) -> Iterator[None]:
    """`deepspeed.initialize` in here builds the classes above.

    Args:
        chunk_numel: scalars that stage 0 updates at once.
        broadcast: send rank 0's weights to all ranks, tensor by tensor, as DeepSpeed does for
            every engine although the phase before has left them equal.
    """
    stage_0 = type("LeanStage0", (LeanStage0,), {"chunk_numel": chunk_numel})
    names: dict[str, Any] = {"FP16_UnfusedOptimizer": stage_0, "DeepSpeedZeroOptimizer": LeanZero}
    originals = {name: getattr(deepspeed_engine, name) for name in names}
    send = deepspeed_engine.DeepSpeedEngine._broadcast_model
    vars(deepspeed_engine).update(names)
    if not broadcast:
        deepspeed_engine.DeepSpeedEngine._broadcast_model = lambda _: None
    try:
        yield
    finally:
        vars(deepspeed_engine).update(originals)
        deepspeed_engine.DeepSpeedEngine._broadcast_model = send


@contextmanager
def uncompiled() -> Iterator[None]:
    """What DeepSpeed's modules decorate to be compiled stays as it is."""
    compiled = compiler.compile
    compiler.compile = lambda: lambda function: function
    try:
        yield
    finally:
        compiler.compile = compiled


def forget_stage_3(model: nn.Module) -> None:
    """Take what stage 3 leaves on a model, and in its own globals."""
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
