"""Starts real worker processes in one gloo group and runs the same function in each."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from transformers import PreTrainedModel

from study.config.load import TrainingConfig, ZeroConfig
from study.protocol.records import OutcomeStatus
from study.strategies.base import BlockLayout, Phase
from study.training.engine.audit import PhaseAudit
from study.training.engine.engine import PhaseEngine, StepResult
from study.training.engine.ops import prepare_deepspeed
from study.training.losses import make_loss
from tests.budget import METER
from tests.helpers.forked import METHOD
from tests.helpers.ray_head import free_port

GLOBAL_BATCH = 8
DEVICES = {"gloo": "cpu", "nccl": "cuda"}
Batch = dict[str, Tensor]


def run_workers(
    function: Callable[[int, int], Any], world_size: int, backend: str = "gloo"
) -> list[Any]:
    """`function(rank, world_size)` of each rank, in a process group.

    The function must be importable, and its result must be something `torch.save` can write.
    """
    with METER.uncounted():
        prepare_deepspeed(DEVICES[backend])
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        mp.start_processes(
            _worker,
            args=(function, world_size, free_port(), folder, backend, environment),
            nprocs=world_size,
            # The server may have asked the CUDA driver something: its forks cannot use CUDA.
            start_method="spawn" if backend == "nccl" else METHOD,
        )
        with torch.serialization.safe_globals([OutcomeStatus]):
            return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world_size)]


def _worker(
    rank: int,
    function: Callable[[int, int], Any],
    world_size: int,
    port: int,
    folder: str,
    backend: str,
    environment: dict[str, str],
) -> None:
    warnings.simplefilter("ignore", FutureWarning)  # DeepSpeed calls renamed torch collectives
    torch.set_num_threads(1)
    os.environ.update(
        environment,
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    prepare_deepspeed(DEVICES[backend])
    dist.init_process_group(backend, rank=rank, world_size=world_size)
    torch.save(function(rank, world_size), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
    # Without the interpreter's teardown: a C++ thread of the process group that asks for the GIL
    # in the middle of it aborts the process ("terminate called without an active exception").
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def global_batches(seed: int = 1, classes: int = 0) -> Iterator[Batch]:
    """Random global batches with uneven numbers of targets; classification if `classes`."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = torch.randint(5, 261, (GLOBAL_BATCH, 12), generator=generator)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if classes:
            batch["labels"] = torch.randint(0, classes, (GLOBAL_BATCH,), generator=generator)
        else:
            ignored = torch.rand(ids.shape, generator=generator) < 0.3
            batch["labels"] = ids.masked_fill(ignored, -100)
        yield batch


def share(batch: Batch, rank: int, world_size: int, micro: int) -> list[Batch]:
    """One rank's micro-batches of a global batch."""
    rows = range(rank * GLOBAL_BATCH // world_size, (rank + 1) * GLOBAL_BATCH // world_size)
    cuts = [list(rows)[i : i + micro] for i in range(0, len(rows), micro)]
    return [{k: v[cut] for k, v in batch.items()} for cut in cuts]


def phase_engine(
    model: PreTrainedModel, active: tuple[str, ...], stage: int, world_size: int, **changes: Any
) -> PhaseEngine:
    """An engine with settings that exercise clipping, weight decay and accumulation."""
    zero = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    arguments: dict[str, Any] = {
        "training": TrainingConfig(global_batch_size=GLOBAL_BATCH),
        # Tiny parameters would all stay whole, and stage 3 would be tested in name only.
        "zero": ZeroConfig.model_construct(
            stage=stage,
            offload_optimizer="none",
            offload_parameters="none",
            overrides={"zero_optimization": zero},
        ),
        "hyperparameters": {"max_grad_norm": 0.5, "weight_decay": 0.01},
        "precision": "fp32",
        "device": torch.device("cpu"),
        "micro_batch_size": 2,
        "world_size": world_size,
    }
    return PhaseEngine(model, active, **{**arguments, **changes})


def train(
    model: PreTrainedModel,
    phases: tuple[Phase, ...],
    stage: int,
    rank: int,
    world_size: int,
    *,
    micro: int = 2,
    classes: int = 0,
    **changes: Any,
) -> list[StepResult]:
    """All phases on the same stream of batches, each audited."""
    batches = global_batches(classes=classes)
    loss = make_loss("sequence-classification" if classes else "causal-lm")
    results = []
    for phase in phases:
        with phase_engine(
            model,
            phase.parameters,
            stage,
            world_size,
            factors=phase.learning_rate_factors,
            micro_batch_size=micro,
            **changes,
        ) as engine:
            audit = PhaseAudit(engine)
            for _ in range(phase.steps):
                mine = share(next(batches), rank, world_size, micro)
                result = engine.train_step(mine, loss, 1e-3)
                audit.observe(result)
                engine.evaluate(mine[0])
                results.append(result)
            audit.check()
    return results


def difference(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest absolute difference over all parameters."""
    return max(float((weights[n] - expected[n]).abs().max()) for n in expected)


def group_phases(layout: BlockLayout, steps: int = 8, **options: Any) -> tuple[Phase, ...]:
    """LIFT's phases."""
    from study.strategies.lift import LiftStrategy

    return LiftStrategy(**options).phases(layout, steps)
