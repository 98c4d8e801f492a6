"""One real step of the heaviest phase of each arm, and what it took."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from study.basics.errors import TrialError
from study.config.load import StudyConfig
from study.protocol.records import StepCosts
from study.strategies.base import Phase
from study.training.data.tokenised import StudyData
from study.training.engine.engine import PhaseEngine, batch_to
from study.training.feed import Feed
from study.training.losses import make_loss
from study.training.model.base_model import BaseModel
from study.training.placement import Placement
from study.training.prefix.open import node_store
from study.training.probe import measure_step_costs
from study.training.setup import open_engine, seed_everything

log = logging.getLogger(__name__)

# Leaves the weights where they are; the optimizer does the same work.
_LEARNING_RATE = 1e-12


@dataclass(frozen=True)
class Rehearsal:
    """What a worker group found; the same on every rank.

    Attributes:
        peak_bytes: per arm, largest over ranks: device memory, or resident set on CPU.
        costs: of the steps; None if it was not asked for.
        load_seconds: what a trial does before its first phase, the slowest rank's.
        seconds: all of it inside the workers.
    """

    peak_bytes: dict[str, int]
    costs: StepCosts | None
    load_seconds: float
    seconds: float


def rehearse(
    config: StudyConfig,
    data: StudyData,
    placement: Placement,
    phases: Sequence[tuple[str, Phase]],
    *,
    scratch: str,
    costs: bool,
) -> Rehearsal:
    """Take one step on the longest examples and evaluate the largest batch, arm by arm; then time
    steps if `costs`. Every rank must call it.

    Args:
        phases: (arm, its heaviest phase), the one that needs least memory first: on the CPU a
            process seldom gives back all that it had.
        scratch: a new name, for a prefix cache that is removed again.

    Raises:
        TrialError: memory is not enough; names the arm.
        ModelError: the model cannot be loaded.
    """
    began = time.perf_counter()
    seed_everything(config.seed)
    model = BaseModel(config, data.summary.label_names, placement).fresh(config.seed)
    load_seconds = placement.max(time.perf_counter() - began)
    peaks = {}
    for arm, phase in phases:
        with _out_of_memory_told(arm, phase):
            peaks[arm] = int(placement.max(_peak_of(config, data, placement, model, phase)))
        log.info("%s: %s, peak %d bytes", arm, phase.name, peaks[arm])
    found = None
    if costs:
        if config.zero.stage == 3:  # engines leave the parameters cut; the probe wants them whole
            del model
            gc.collect()
            if placement.device.type == "cuda":
                torch.cuda.empty_cache()
            model = BaseModel(config, data.summary.label_names, placement).fresh(config.seed)
        with _cache_of_its_own(config, placement, scratch) as changed:
            found = measure_step_costs(changed, data, placement, model)
    return Rehearsal(peaks, found, load_seconds, placement.max(time.perf_counter() - began))


def _peak_of(
    config: StudyConfig,
    data: StudyData,
    placement: Placement,
    model: PreTrainedModel,
    phase: Phase,
) -> int:
    feed, loss = Feed(config, data, placement), make_loss(config.task)
    lengths = data.pool.lengths
    longest = np.argsort(-lengths, kind="stable")[: config.training.global_batch_size]
    batch = feed.train_batches(np.sort(longest), config.seed).global_batch(0)
    peak = PeakMemory(placement)
    hyperparameters = {"learning_rate": _LEARNING_RATE, "max_grad_norm": 1.0}
    with open_engine(config, placement, model, phase, hyperparameters) as engine:
        micro_batches = [feed.collate("pool", ids) for ids in batch.micro_batches]
        engine.train_step(micro_batches, loss, _LEARNING_RATE)
        _evaluate_largest(feed, engine, config, placement)
        return peak.bytes()


def _evaluate_largest(
    feed: Feed, engine: PhaseEngine, config: StudyConfig, placement: Placement
) -> None:
    lengths = feed.split("validation").lengths
    batches = feed.evaluation_batches("validation")
    largest = max(batches, key=lambda b: len(b.ids) * int(lengths[b.ids].max()))
    batch = feed.collate("validation", largest.ids)
    logits = engine.evaluate(batch)
    make_loss(config.task).per_example(logits, batch_to(batch, placement.device))


@contextlib.contextmanager
def _cache_of_its_own(
    config: StudyConfig, placement: Placement, scratch: str
) -> Iterator[StudyConfig]:
    """The study with an empty prefix cache that is gone afterwards: the first trial must find its
    own as it would have."""
    folder = node_store(config).root / scratch
    cache = config.prefix_cache.model_copy(update={"folder": str(folder)})
    try:
        yield config.model_copy(update={"prefix_cache": cache})
        placement.max(0)  # until the last rank has closed its files
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if config.prefix_cache.folder is None:
            with contextlib.suppress(OSError):  # the study's own files are there
                folder.parent.rmdir()
                folder.parent.parent.rmdir()


@contextlib.contextmanager
def _out_of_memory_told(arm: str, phase: Phase) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrialError(f"{arm} ran out of memory in its phase {phase.name}: {error}") from error


class PeakMemory:
    """Most memory in use on one rank since it was made: of the device, or resident on the CPU."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        placement.reset_peak()
        # Linux forgets the process's peak so far. Where that is not allowed the process's whole
        # life counts.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        """The peak."""
        now = self._placement.memory_bytes()
        if self._placement.device.type == "cuda":
            return now
        with contextlib.suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = next(line for line in lines if line.startswith("VmHWM:")).split()[1]
            return max(now, int(kib) * 1024)
        return now
