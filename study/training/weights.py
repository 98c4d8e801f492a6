"""The weights of a trial's best evaluation, kept on the host until they are scored."""

from __future__ import annotations

import torch

from study.training.engine import PhaseEngine


class BestWeights:
    """A copy of what this rank holds of every parameter: all of it, or its shard on ZeRO-3."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def take(self, engine: PhaseEngine) -> None:
        """Copy every parameter, replacing an earlier copy."""
        for name, parameter in engine.model.named_parameters():
            held = getattr(parameter, "ds_tensor", parameter)
            kept = self._kept.setdefault(name, torch.empty_like(held, device="cpu"))
            kept.copy_(held)

    @torch.no_grad()
    def restore(self, engine: PhaseEngine) -> None:
        """Put the copy back into the model, for evaluation only: the engine's master weights
        stay as they are. Every rank must call it, after `take`."""
        # Parameters that ZeRO-3 keeps gathered would go on serving what they were.
        engine.engine.empty_partition_cache()
        for name, parameter in engine.model.named_parameters():
            getattr(parameter, "ds_tensor", parameter).copy_(self._kept[name])
