"""Memory that a phase will need, before anything is loaded: state by formula, the rest roughly.

What the model and the optimizer hold is `study.protocol.state_bytes`, exact but for
rounding. Activations are rough. Per token of a forward pass, in numbers of the weights' width:

    each block that the backward pass goes through    10 hidden + 4 intermediate
    the same with gradient checkpointing              hidden, and one block whole
    attention not in one piece (eager)                2 heads * tokens of the longest example
    a language model's head                           2 vocabulary (logits and their gradient)

A frozen prefix keeps nothing for the backward pass but needs one block's worth as it runs. Take
the sum within a factor of two; a real step (`study.training.rehearsal`) tells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.config.load import StudyConfig
from study.protocol.plan import StudyPlan
from study.protocol.state_bytes import StateBytes, state_bytes
from study.protocol.steps import trial_strategy
from study.strategies import STRATEGIES
from study.strategies.base import Phase, Strategy, lowest_active_block
from study.training.data.batches import AUTOMATIC_MICRO_BATCH_SIZE
from study.training.engine.zero import bucket_numel, resolve_micro_batch_size
from study.training.model.shape import ModelShape

_GIB = 2**30
_LOSS_CHUNKS = 2 * 64 * 2**20
"""What the loss holds in fp32 at once, see `study.training.losses`."""
_PROCESS = {"cpu": 0.6 * _GIB, "cuda": 1.0 * _GIB}
"""A worker's libraries; on a GPU its context and the collectives' buffers."""


@dataclass(frozen=True)
class Load:
    """What is trained on one rank, apart from the model.

    Attributes:
        world_size: workers per trial.
        precision: ``bf16`` or ``fp32``.
        device_type: ``cuda`` or ``cpu``.
        tokens: of the largest forward pass, padding included.
        longest: tokens of the longest example.
    """

    world_size: int
    precision: str
    device_type: str
    tokens: int
    longest: int


@dataclass(frozen=True)
class Footprint:
    """Bytes that one rank needs in one phase.

    Attributes:
        phase: see `Phase`; its steps mean nothing here.
        state: weights, gradients, master weights, moments.
        whole_weights: of the model as it is loaded, before ZeRO-3 cuts it.
        activations: rough, see above.
        other: buckets, gathered parameters, the process itself; rough.
    """

    phase: Phase
    state: StateBytes
    whole_weights: int
    activations: int
    other: int

    @property
    def certain(self) -> int:
        """On the device whatever the batch is."""
        return max(self.whole_weights, self.state.weights + self.state.peak)

    @property
    def total(self) -> int:
        """On the device inside a step."""
        training = self.state.weights + self.state.peak + self.activations
        return max(self.whole_weights, training) + self.other


def tokens_per_pass(config: StudyConfig, world_size: int, longest: int) -> int:
    """Tokens of the largest forward pass on a worker, as `batches.cut_by_length` may cut it."""
    training = config.training
    share = -(-training.global_batch_size // world_size) * longest
    if training.micro_batch_size_per_worker is not None:
        return min(share, resolve_micro_batch_size(training, world_size) * longest)
    return min(share, AUTOMATIC_MICRO_BATCH_SIZE * training.sequence_length)


def phase_footprint(config: StudyConfig, shape: ModelShape, phase: Phase, load: Load) -> Footprint:
    """What one rank needs in `phase`."""
    zero, active = config.zero, shape.layout.count(phase.parameters)
    width = 2 if load.precision == "bf16" else 4
    state = state_bytes(
        shape.parameters,
        active,
        load.world_size,
        zero.stage,
        load.precision,
        offload=zero.offload_optimizer == "cpu",
        moments=2 if config.training.optimizer == "adamw" else 1,
    )
    # Reduced or gathered at once, and copied meanwhile.
    other = 2 * width * bucket_numel(active) if zero.stage and load.world_size > 1 else 0
    if zero.stage == 3:
        other += width * shape.largest_block
        if zero.offload_parameters == "cpu":
            state = replace(state, weights=0, host=state.host + state.weights)
    return Footprint(
        phase=phase,
        state=state,
        whole_weights=width * shape.parameters,
        activations=_activations(config, shape, phase, load, width),
        other=round(other + _PROCESS[load.device_type]),
    )


def _activations(
    config: StudyConfig, shape: ModelShape, phase: Phase, load: Load, width: int
) -> int:
    block = 10 * shape.hidden + 4 * shape.intermediate
    block += shape.scores * shape.heads * load.longest
    reached = max(1, len(shape.layout.blocks) - lowest_active_block(shape.layout, phase))
    if config.model.gradient_checkpointing:
        kept = reached * shape.hidden + block
    else:
        kept = reached * block
    loss = min(_LOSS_CHUNKS, 8 * load.tokens * shape.logits)
    return width * load.tokens * (kept + 2 * shape.logits) + loss


def largest_footprint(
    config: StudyConfig, shape: ModelShape, phases: Iterable[Phase], load: Load
) -> Footprint:
    """That of the phase which needs most on the device."""
    found = [phase_footprint(config, shape, phase, load) for phase in phases]
    return max(found, key=lambda footprint: footprint.total)


def possible_phases(plan: StudyPlan, shape: ModelShape, arm: str) -> list[Phase]:
    """Phases that trials of an arm can have, each set of parameters once; their steps mean
    nothing."""
    found: dict[tuple[str, ...], Phase] = {}
    for strategy in _strategies(plan, arm):
        count = strategy.phase_count(len(shape.layout.blocks))
        for phase in strategy.phases(shape.layout, count):
            found.setdefault(phase.parameters, phase)
    return list(found.values())


def _strategies(plan: StudyPlan, arm: str) -> list[Strategy]:
    chosen: Sequence[Mapping[str, Any]]
    chosen = [s.hyperparameters for s in plan.search if s.arm == arm and s.hyperparameters]
    if not chosen:  # a sampler will choose: every choice, and both ends of every range
        space, structure = plan.resolved.space().for_arm(arm), STRATEGIES[arm].structure
        searched = {n: list(space[n].values()) for n in space if n in structure}
        combined = itertools.product(*searched.values())
        chosen = [dict(zip(searched, values, strict=True)) for values in combined]
    return list(dict.fromkeys(trial_strategy(plan.resolved, arm, values) for values in chosen))


def checkpoint_bytes(config: StudyConfig, shape: ModelShape, phases: Iterable[Phase]) -> int:
    """Disk of one trial's checkpoint, over all its ranks, at its largest: weights, those of the
    best evaluation, master weights and moments; 0 without checkpoints."""
    if config.training.checkpoint_share == 0:
        return 0
    moments = 2 if config.training.optimizer == "adamw" else 1
    active = max(shape.layout.count(phase.parameters) for phase in phases)
    weights = 4 * shape.parameters * (2 if config.confirm.seeds else 1)
    return math.ceil(weights + 4 * (1 + moments) * active)
