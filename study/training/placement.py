"""Where one worker of a trial runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import psutil
import torch
import torch.distributed as dist

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Placement:
    """One worker among the workers of a trial; the process group already exists.

    Attributes:
        device: where the model and batches live.
        rank, world_size: of the process group.
    """

    device: torch.device
    rank: int
    world_size: int

    def precision(self, wanted: Literal["auto", "bf16", "fp32"]) -> Precision:
        """`auto` is bf16 on GPUs that have it and fp32 elsewhere."""
        if wanted != "auto":
            return wanted
        on_gpu = self.device.type == "cuda"
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"

    def memory_bytes(self) -> int:
        """Peak device memory since the last reset, or the resident set now on CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return psutil.Process().memory_info().rss

    def all_reduce(
        self, values: torch.Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
    ) -> None:
        """Reduce a tensor on any device over all ranks, in place."""
        if self.world_size == 1:
            return
        # NCCL reduces device tensors only.
        on_device = values.to(self.device)
        dist.all_reduce(on_device, operation)
        values.copy_(on_device)

    def sum(self, value: float) -> float:
        """Sum of a number over all ranks."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def max(self, value: float) -> float:
        """Largest of a number over all ranks."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def _reduce(self, value: float, operation: dist.ReduceOp.RedOpType) -> float:
        tensor = torch.tensor([value], dtype=torch.float64)
        self.all_reduce(tensor, operation)
        return float(tensor.item())

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
