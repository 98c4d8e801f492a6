"""DeepSpeed without the copies that it makes of gradients, states and weights.

Same numbers to the last digit; only what is alive at the same time differs. Imports DeepSpeed:
import it inside a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.runtime import engine as deepspeed_engine
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.utils import get_global_norm, get_weight_norm, is_invalid_grad_norm
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor, nn


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
