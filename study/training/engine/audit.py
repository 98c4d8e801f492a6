"""Checks after each phase that it changed what it should, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from study.basics.errors import AuditError
from study.training.engine.checksum import checksum
from study.training.engine.engine import PhaseEngine, StepResult
from study.training.engine.weights import held

_MARGIN = 8.0
"""An update must be so many times the weights' float spacing before movement is demanded."""


class PhaseAudit(AbstractContextManager["PhaseAudit"]):
    """Watches one phase: build it after the engine, call `observe` after each step, then `check`.
    A context manager: its hooks on the model go, however the phase ends.

    Frozen parameters are compared by 64-bit checksums of their bits, so the audit costs no memory
    worth naming; each rank looks at what it holds (its shard on stage 3). An active tensor must
    have changed in its fp32 master weights once a step gave it a gradient large enough for the
    update to be representable; key biases in attention, whose exact gradient is zero, or experts
    that no token reached need not move.

    Args:
        state: what `state` gave on this rank when the phase was interrupted: its start still is
            what the end is compared with.
    """

    def __init__(self, engine: PhaseEngine, state: Mapping[str, Any] | None = None) -> None:
        self._engine = engine
        parameters = dict(engine.model.named_parameters())
        self._frozen = {n: p for n, p in parameters.items() if n not in set(engine.active)}
        self._active = {n: parameters[n] for n in engine.active}
        self._start = self._now() | {"spacing": self._spacings()} if state is None else state
        self._must_move = set(self._start.get("must_move", ()))
        self._gradients: dict[str, Tensor] = {}
        self._hooks = {
            n: p.register_hook(self._recorder(n))
            for n, p in self._active.items()
            if n not in self._must_move
        }

    def _now(self) -> dict[str, Any]:
        return {
            "frozen_sums": _checksums(self._frozen, held),
            "master_sums": _checksums(self._active, self._master),
        }

    def state(self) -> dict[str, Any]:
        """Plain values that carry this rank's audit over to another process, between steps."""
        return {**self._start, "must_move": sorted(self._must_move)}

    def observe(self, result: StepResult) -> None:
        """Note which tensors the step that was just made must have moved."""
        if not self._gradients:
            return
        largest = torch.stack(list(self._gradients.values())).tolist()
        clip = self._engine.max_grad_norm
        scale = min(1.0, clip / (result.grad_norm + 1e-6)) if clip > 0 else 1.0
        for name, gradient in zip(list(self._gradients), largest, strict=True):
            update = self._update(scale * gradient / self._engine.world_size)
            update *= self._engine.factors[name]
            if update > _MARGIN * self._start["spacing"][name]:
                self._must_move.add(name)
                # Seen once is enough; later steps cost nothing.
                self._hooks.pop(name).remove()
        self._gradients.clear()

    def check(self) -> None:
        """Compare with the start of the phase. Every rank must call it; all raise together.

        Raises:
            AuditError: a frozen parameter moved, or an active one with a gradient did not.
        """
        self.close()
        frozen, master = self._now().values()
        moved = self._anywhere([frozen[n] != self._start["frozen_sums"][n] for n in frozen])
        changed = self._anywhere([master[n] != self._start["master_sums"][n] for n in master])
        demanded = self._anywhere([n in self._must_move for n in self._active])
        drifted = [n for n, m in zip(self._frozen, moved, strict=True) if m]
        stuck = [n for n, c, d in zip(self._active, changed, demanded, strict=True) if d and not c]
        if drifted:
            raise AuditError(f"{len(drifted)} frozen parameters moved: {_some(drifted)}")
        if stuck:
            raise AuditError(f"{len(stuck)} active parameters did not move: {_some(stuck)}")

    def close(self) -> None:
        """Remove the gradient hooks; `check` does it too."""
        while self._hooks:
            self._hooks.popitem()[1].remove()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recorder(self, name: str) -> Callable[[Tensor], None]:
        def record(gradient: Tensor) -> None:
            largest = gradient.detach().abs().max().float()
            seen = self._gradients.get(name)
            self._gradients[name] = largest if seen is None else torch.maximum(seen, largest)

        return record

    def _update(self, gradient: float) -> float:
        """Size of the first update that a gradient of this size causes."""
        training = self._engine.training
        if training.optimizer == "adamw":
            gradient = gradient / (gradient + training.epsilon)
        return self._engine.learning_rate * gradient

    def _spacings(self) -> dict[str, float]:
        # A rank may hold no part of a tensor: all go by the largest weight anywhere.
        local = [_float_spacing(self._master(p)) for p in self._active.values()]
        spacings = torch.tensor(local, dtype=torch.float64, device=self._engine.device)
        dist.all_reduce(spacings, op=dist.ReduceOp.MAX)
        return dict(zip(self._active, spacings.tolist(), strict=True))

    def _master(self, parameter: nn.Parameter) -> Tensor | None:
        """The part of a parameter's fp32 master weights that this rank holds."""
        if self._engine.stage == 3:
            from deepspeed.utils import safe_get_local_fp32_param

            return safe_get_local_fp32_param(parameter)
        if self._engine.stage > 0:
            mapping = getattr(parameter, "_hp_mapping", None)
            return None if mapping is None else mapping.get_hp_fragment()
        optimizer: Any = self._engine.engine.optimizer
        for halves, masters in zip(
            getattr(optimizer, "fp16_groups", ()),
            getattr(optimizer, "fp32_groups", ()),
            strict=True,
        ):
            for half, master in zip(halves, masters, strict=True):
                if half is parameter:
                    return master
        return parameter

    def _anywhere(self, flags: list[bool]) -> list[bool]:
        votes = torch.tensor(flags, dtype=torch.int32, device=self._engine.device)
        if flags:
            dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return [bool(v) for v in votes.tolist()]


def _checksums(
    parameters: Mapping[str, nn.Parameter], held: Callable[[nn.Parameter], Tensor | None]
) -> dict[str, int | None]:
    parts = {name: held(p) for name, p in parameters.items()}
    return {name: None if part is None else checksum(part) for name, part in parts.items()}


@torch.no_grad()
def _float_spacing(master: Tensor | None) -> float:
    """Distance between neighbouring fp32 numbers at the tensor's largest weight."""
    if master is None or master.numel() == 0:
        return 0.0
    return float(master.abs().max()) * 2.0**-23


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
