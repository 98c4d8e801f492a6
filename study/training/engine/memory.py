"""Bytes of weights, gradients, master weights and optimizer moments as they are held;
`study.protocol.state_bytes` has the formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from study.training.engine.engine import PhaseEngine

_WATCHED_STEPS = 2
"""The first makes the moments; the second holds all there will ever be."""


@dataclass(frozen=True)
class HeldBytes:
    """What one rank really holds, in bytes; each storage counts once.

    Attributes:
        weights: of the model, frozen ones included.
        gradients: of any precision.
        master: fp32 weights that the optimizer updates, where they are not the model's own.
        moments: the optimizer's state.
        host: the part of the last three that lies in host memory, by the tensors' own device; 0
            where the engine trains on the CPU, whose memory is the same.
    """

    weights: int
    gradients: int
    master: int
    moments: int
    host: int

    @property
    def state(self) -> int:
        """Gradients, master weights and moments."""
        return self.gradients + self.master + self.moments


def held_bytes(engine: PhaseEngine) -> HeldBytes:
    """Walk the model and the optimizer of a live engine, on this rank; no communication."""
    tally = _Tally()
    parameters = list(engine.model.parameters())
    masters = master_weights(engine)
    states = engine.engine.basic_optimizer.state
    moments = [t for m in masters for t in states.get(m, {}).values() if isinstance(t, Tensor)]
    # What stage 3 keeps whole has a shard besides.
    weights = tally.add(t for p in parameters for t in (p.data, getattr(p, "ds_tensor", p.data)))
    weights_on_host = tally.host
    return HeldBytes(
        weights=weights,
        master=tally.add(masters),
        moments=tally.add(moments),
        gradients=tally.add(_gradients(engine, masters)),
        host=0 if engine.device.type == "cpu" else tally.host - weights_on_host,
    )


class StateWatch:
    """The most gradients, master weights and moments that this rank was seen to hold, in bytes.

    Looks by `held_bytes` at the first steps of an engine only; later ones cost nothing.

    Attributes:
        steady: after a backward pass, with its gradients.
        peak: at any moment of a step, where fp32 gradients and partitions come and go.
    """

    def __init__(self, engine: PhaseEngine) -> None:
        self.steady = self.peak = 0
        self._engine, self._steps_left = engine, _WATCHED_STEPS
        optimizer: Any = engine.engine.optimizer
        self._hook = engine.engine.basic_optimizer.register_step_pre_hook(self._inside_step)
        if hasattr(optimizer, "on_new_gradients"):
            optimizer.on_new_gradients = self._inside_step

    def after_backward(self) -> None:
        """Look, gradients being there."""
        self.steady = max(self.steady, self._look())

    def after_step(self) -> None:
        """Count a step, and stop looking after the last one."""
        self._steps_left -= 1
        if not self._steps_left:
            self._hook.remove()

    def _inside_step(self, *_: object) -> None:
        self._look()

    def _look(self) -> int:
        if self._steps_left <= 0:
            return 0
        held = held_bytes(self._engine).state
        self.peak = max(self.peak, held)
        return held


def master_weights(engine: PhaseEngine) -> list[Tensor]:
    """What the torch optimizer updates on this rank, in a fixed order: flat partitions on stages
    1 to 3, whole tensors on stage 0 (in fp32 the model's own)."""
    optimizer: Any = engine.engine.optimizer
    # Stage 3 hands its partitions to the torch optimizer one at a time, only while it steps.
    partitions = getattr(optimizer, "fp32_partitioned_groups_flat", None)
    if partitions is not None:
        return list(partitions)
    return [p for group in optimizer.param_groups for p in group["params"]]


class _Tally:
    """Bytes of storages, each counted once over all kinds: first come, first counted."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.host = 0

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of the storages not seen before."""
        total = 0
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.data_ptr() in self._seen or not storage.nbytes():
                continue
            self._seen.add(storage.data_ptr())
            total += storage.nbytes()
            self.host += storage.nbytes() if tensor.device.type == "cpu" else 0
        return total


def _gradients(engine: PhaseEngine, masters: Iterable[Tensor]) -> Iterator[Tensor]:
    optimizer: Any = engine.engine.optimizer
    for parameter in (*engine.model.parameters(), *masters):
        for gradient in (parameter.grad, getattr(parameter, "grad_accum", None)):
            if gradient is not None:
                yield gradient
    # Stages 1 and 2 keep this rank's part in lists per group, stage 3 in one flat buffer.
    for name in ("averaged_gradients", "all_grad_tensors"):
        for group in getattr(optimizer, name, {}).values():
            yield from (t for t in group or () if t is not None)
    flat = getattr(optimizer, "grad_partitions_flat_buffer", None)
    if flat is not None:
        yield flat
