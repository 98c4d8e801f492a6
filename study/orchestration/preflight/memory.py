"""Whether each arm's heaviest phase fits the devices, before anything is loaded.

On the CPU the device is the node: all workers that run there at once share its free memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from study.basics.text_format import byte_size, listed
from study.config.load import StudyConfig
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.node_task import Gpu
from study.strategies import arm_label
from study.strategies.base import Phase

if TYPE_CHECKING:
    from study.orchestration.preflight.footprint import Footprint
    from study.training.model.shape import ModelShape

_TIGHT = 0.9
"""Share of a device above which an estimate is too close to call."""


@dataclass(frozen=True)
class NodeRoom:
    """What a node has for the study's workers.

    Attributes:
        memory: bytes of host memory that are free.
        gpus: of the node; None where they could not be asked.
        at_once: workers that run there when as many trials run as the study wants.
        of_one_trial: workers of a single trial there, at most.
    """

    name: str
    memory: int
    gpus: tuple[Gpu, ...] | None
    at_once: int
    of_one_trial: int


@dataclass(frozen=True)
class Devices:
    """Where workers train.

    Attributes:
        nodes: those that can hold a worker.
        world_size: workers per trial.
        gpu_share: of a GPU per worker; 0: they train on the CPU.
    """

    nodes: Sequence[NodeRoom]
    world_size: int
    gpu_share: float


@dataclass(frozen=True)
class _Demand:
    """What one rank needs of one arm, and how the study could be made to need less."""

    footprint: Footprint
    others: tuple[tuple[str, Footprint], ...]


def check_memory(
    config: StudyConfig,
    shape: ModelShape,
    phases: Sequence[Phase],
    devices: Devices,
    longest: int,
) -> tuple[Finding, Footprint]:
    """Judge one arm.

    Args:
        phases: that its trials may have.
        longest: tokens of the longest example.

    Returns:
        What was found, and the footprint of the heaviest phase.
    """
    demand = _Demand(
        _heaviest(config, shape, phases, devices, longest),
        tuple(
            (words, _heaviest(changed, shape, phases, devices, longest))
            for words, changed in _cheaper(config, devices)
        ),
    )
    judge = _judge_gpu if devices.gpu_share else _judge_host
    return judge(demand, devices), demand.footprint


def or_without_it(finding: Finding, config: StudyConfig, arm: str) -> Finding:
    """That the first arm does not fit may be the answer, which needs no run of it."""
    first, *others = config.arms.names
    if finding.status is not Status.FAIL or arm != first or not others:
        return finding
    alone = (
        f"Or run {listed([arm_label(other) for other in others])} alone (arms: "
        f"[{', '.join(others)}]) with your device's memory as decision.memory_limit_gib: the "
        "report then says whether memory decides."
    )
    return replace(finding, remedy=f"{finding.remedy} {alone}")


def _heaviest(
    config: StudyConfig,
    shape: ModelShape,
    phases: Sequence[Phase],
    devices: Devices,
    longest: int,
) -> Footprint:
    from study.orchestration.preflight.footprint import Load, largest_footprint, tokens_per_pass

    on_gpu = devices.gpu_share > 0
    wanted = config.training.precision
    load = Load(
        world_size=devices.world_size,
        precision=wanted if wanted != "auto" else "bf16" if on_gpu else "fp32",
        device_type="cuda" if on_gpu else "cpu",
        tokens=tokens_per_pass(config, devices.world_size, longest),
        longest=longest,
    )
    return largest_footprint(config, shape, phases, load)


def _cheaper(config: StudyConfig, devices: Devices) -> Iterator[tuple[str, StudyConfig]]:
    """Settings that need less memory, one after the other, then all of them."""
    ways: list[tuple[str, str, dict[str, Any]]] = []
    if config.training.micro_batch_size_per_worker != 1:
        small = {"micro_batch_size_per_worker": 1}
        ways.append(("training.micro_batch_size_per_worker: 1", "training", small))
    if not config.model.gradient_checkpointing:
        recomputed = {"gradient_checkpointing": True}
        ways.append(("model.gradient_checkpointing: true", "model", recomputed))
    if config.zero.stage < 3 and devices.world_size > 1:
        ways.append(("zero.stage: 3", "zero", {"stage": 3}))
    if devices.gpu_share and config.zero.stage and config.zero.offload_optimizer == "none":
        ways.append(("zero.offload_optimizer: cpu", "zero", {"offload_optimizer": "cpu"}))
    together = config
    for words, section, change in ways:
        yield words, _changed(config, section, change)
        together = _changed(together, section, change)
    if len(ways) > 1:
        yield ", ".join(words for words, _, _ in ways), together


def _changed(config: StudyConfig, section: str, change: dict[str, Any]) -> StudyConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=change)})


def _judge_gpu(demand: _Demand, devices: Devices) -> Finding:
    known = [(gpu, node) for node in devices.nodes for gpu in node.gpus or ()]
    if not known:
        needed = byte_size(demand.footprint.total)
        return Finding(
            f"needs about {needed} a worker; the GPUs' memory could not be read.",
            Status.WARN,
            "Compare it with your GPUs, or let a real step tell: study check --probe.",
        )
    smallest, _ = min(known, key=lambda pair: pair[0].total)
    sharing = max(1, round(1 / devices.gpu_share))
    found = _described(demand.footprint, sharing, smallest.total, smallest.name)
    if (verdict := _verdict(demand, sharing, smallest.total)) is not None:
        return Finding(found, verdict, _remedy(demand, sharing, smallest.total))
    gpu, node = min(known, key=lambda pair: pair[0].free)
    if demand.footprint.total * sharing > gpu.free:
        return Finding(
            f"{found}, but only {byte_size(gpu.free)} are free on a GPU of {node.name}.",
            Status.WARN,
            "See with nvidia-smi what else is running there.",
        )
    return _judge_loading(demand, devices) or Finding(found)


def _judge_loading(demand: _Demand, devices: Devices) -> Finding | None:
    """Host memory on GPU nodes: every rank loads the whole model there first."""
    footprint = demand.footprint
    each = max(footprint.whole_weights, footprint.state.host)
    for node in devices.nodes:
        if each * node.at_once > node.memory:
            return Finding(
                f"{node.at_once} workers need about {byte_size(each * node.at_once)} of host "
                f"memory to load the model and offload; {node.name} has {byte_size(node.memory)} "
                "free.",
                Status.WARN,
                "Lower resources.concurrent_trials, or use nodes with more host memory.",
            )
    return None


def _judge_host(demand: _Demand, devices: Devices) -> Finding:
    tightest = min(devices.nodes, key=lambda node: node.memory / node.of_one_trial)
    workers = tightest.of_one_trial
    found = _described(demand.footprint, workers, tightest.memory, tightest.name)
    if (verdict := _verdict(demand, workers, tightest.memory)) is not None:
        return Finding(found, verdict, _remedy(demand, workers, tightest.memory))
    for node in devices.nodes:
        if demand.footprint.total * node.at_once > node.memory:
            trials = int(node.memory / (demand.footprint.total * node.of_one_trial))
            return Finding(
                f"{found}, but {node.at_once} workers at once need about "
                f"{byte_size(demand.footprint.total * node.at_once)}.",
                Status.WARN,
                f"Set resources.concurrent_trials to {max(1, trials)}.",
            )
    return Finding(found)


def _described(footprint: Footprint, workers: int, memory: int, name: str) -> str:
    state = footprint.state
    who = f"{workers} workers" if workers > 1 else "a worker"
    host = f", on the host {byte_size(state.host)}" if state.host else ""
    return (
        f"{who} need{'' if workers > 1 else 's'} about {byte_size(footprint.total * workers)} of "
        f"{byte_size(memory)} ({name}); each: weights {byte_size(state.weights)}, state "
        f"{byte_size(state.steady)} ({byte_size(state.peak)} in a step), activations roughly "
        f"{byte_size(footprint.activations)}, other {byte_size(footprint.other)}{host}; heaviest: "
        f"{footprint.phase.name}"
    )


def _verdict(demand: _Demand, workers: int, memory: int) -> Status | None:
    """Only what is known exactly, and half of what is guessed, makes it fail."""
    footprint = demand.footprint
    if workers * (footprint.certain + footprint.activations / 2) > memory:
        return Status.FAIL
    return Status.WARN if workers * footprint.total > _TIGHT * memory else None


def _remedy(demand: _Demand, workers: int, memory: int) -> str:
    for words, footprint in demand.others:
        if workers * footprint.total <= _TIGHT * memory:
            return f"{words} would need about {byte_size(footprint.total * workers)}."
    return "Use more workers per trial with zero.stage: 3, more memory, or a smaller model."
