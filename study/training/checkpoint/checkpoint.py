"""What a trial needs to go on after any step exactly as if it had never been stopped.

Read from, and put back into, a live DeepSpeed engine in place: its own loader unpickles, and
rebuilds optimizer states that must stay as they were.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.config.load import StudyConfig
from study.protocol.extension import without_job_folder
from study.protocol.records import TrialSpec
from study.training.checkpoint.files import CheckpointFolder, Checkpoints, Saved
from study.training.checkpoint.remote import RemoteCheckpointFolder
from study.training.data.tokenised import StudyData
from study.training.engine.audit import PhaseAudit
from study.training.engine.engine import PhaseEngine
from study.training.engine.memory import master_weights
from study.training.engine.weights import held_weights, restore_weights
from study.training.placement import Placement
from study.training.progress import Progress
from study.training.setup import library_versions


class TrialCheckpoints:
    """Keeps one trial's newest checkpoint. Every rank makes the same calls in the same order.

    Args:
        folder: of this trial, shared by the ranks, or its URL; None: no checkpoints.
        share: of the trial's wall time that writing may take after the first checkpoint, 0 to 1;
            0: no checkpoints, 1: one at every evaluation whatever it costs.
        identity: plain values that a checkpoint must have been written under to be taken up.
    """

    def __init__(
        self,
        folder: Path | str | None,
        share: float,
        placement: Placement,
        identity: Mapping[str, Any],
    ) -> None:
        self._placement, self._share = placement, share
        self._folder: Checkpoints | None = None
        if isinstance(folder, str) and share > 0:
            self._folder = RemoteCheckpointFolder(folder, placement, identity)
        elif isinstance(folder, Path) and share > 0:
            self._folder = CheckpointFolder(folder, placement, identity)
        self._spent = self._last = 0.0

    def save(
        self,
        engine: PhaseEngine,
        audit: PhaseAudit,
        progress: Progress,
        trained: Collection[str],
        best: Mapping[str, Tensor],
        cache: Mapping[str, Tensor],
        at_any_cost: bool = False,
    ) -> None:
        """Write a checkpoint between two steps; none if it would cost too much time.

        Args:
            trained: parameters that have trained so far; the others are the base model's.
            best: `held_weights` at the best evaluation; empty if they are not kept.
            cache: `PrefixCache.state`; empty where there is no cache.
            at_any_cost: the trial stops here for now.
        """
        if self._folder is None or self._folder.failed:
            return
        if not (at_any_cost or self._is_due(progress.wall_seconds)):
            return
        began = time.perf_counter()
        document = {
            "progress": progress.to_dict(),
            "audit": audit.state(),
            "random": _plain_random_states(),
        }
        at_best = progress.at_evaluation and progress.improved
        own, common = self._tensors(engine, trained, {} if at_best else best)
        self._folder.write(progress.step, document, {**own, **cache}, common)
        seconds = time.perf_counter() - began
        progress.checkpoint_seconds += seconds
        self._last = self._placement.max(seconds)
        self._spent += self._last

    def load(self) -> Saved | None:
        """The checkpoint to go on from, the same one on every rank, or None."""
        return self._folder.read() if self._folder is not None else None

    def remove(self) -> None:
        """The trial has ended: remove what is left of its checkpoints."""
        if self._folder is not None:
            self._folder.remove()

    def _is_due(self, seconds: float) -> bool:
        if self._share >= 1 or not self._spent:
            return True
        # Clocks differ: all ranks must come to the same answer.
        return self._spent + self._last <= self._share * self._placement.max(seconds)

    def _tensors(
        self, engine: PhaseEngine, trained: Collection[str], best: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """This rank's own tensors, and those that every rank holds alike (on rank 0 only)."""
        first = self._placement.rank == 0
        own = _random_tensors(self._placement.device)
        common: dict[str, Tensor] = {}
        if first or engine.stage == 3:
            weights = _prefixed("weights", held_weights(engine.model, trained))
            weights |= _prefixed("best", {n: best[n] for n in trained if n in best})
            (own if engine.stage == 3 else common).update(weights)
        if first or engine.stage > 0:
            (own if engine.stage > 0 else common).update(_optimizer_tensors(engine))
        return own, common


def trial_identity(
    config: StudyConfig, spec: TrialSpec, data: StudyData, placement: Placement
) -> dict[str, Any]:
    """What a checkpoint and the run that takes it up must agree in: everything that its numbers
    depend on."""
    sections = config.to_dict()
    return {
        "trial": spec.to_dict(),
        "world size": placement.world_size,
        "precision": placement.precision(config.training.precision),
        "data": data.summary.fingerprint,
        "library version": library_versions(),
        "arm": sections["arms"][spec.arm],
        "model": without_job_folder(sections["model"]),
        **{name: sections[name] for name in ("task", "zero")},
        "training": {k: v for k, v in sections["training"].items() if k != "checkpoint_share"},
    }


def restore_engine(engine: PhaseEngine, saved: Saved) -> None:
    """Put weights, master weights and optimizer states back into a phase's new engine."""
    restore_weights(engine.model, _under("weights", saved.tensors))
    states = engine.engine.basic_optimizer.state
    with torch.no_grad():
        for index, master in enumerate(master_weights(engine)):
            found = _under(f"optimizer/{index}", saved.tensors)
            master.copy_(found.pop("master"))
            states[master] = {key: value.to(master.device) for key, value in found.items()}


def best_weights(engine: PhaseEngine, saved: Saved) -> dict[str, Tensor]:
    """All weights at the best evaluation, as this rank holds them. Before `restore_engine`: what
    had not trained by then is taken from the model, which is still the base model."""
    found = _under("best", saved.tensors) or _under("weights", saved.tensors)
    return held_weights(engine.model) | found


def restore_random_states(saved: Saved, device: torch.device) -> None:
    """Set Python's, NumPy's and torch's generators; last of all, since building uses them."""
    version, internal, gauss = saved.document["random"]["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = saved.document["random"]["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(saved.tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(saved.tensors["random/cuda"], device)


def _plain_random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}


def _random_tensors(device: torch.device) -> dict[str, Tensor]:
    states = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random/cuda"] = torch.cuda.get_rng_state(device)
    return states


def _optimizer_tensors(engine: PhaseEngine) -> dict[str, Tensor]:
    """This rank's fp32 master weights and what the optimizer keeps for each (AdamW: both moments
    and the step; SGD: the momentum)."""
    states = engine.engine.basic_optimizer.state
    found: dict[str, Tensor] = {}
    for index, master in enumerate(master_weights(engine)):
        tensors = {"master": master, **states.get(master, {})}
        found |= _prefixed(
            f"optimizer/{index}",
            {k: t.detach().cpu().contiguous() for k, t in tensors.items() if t is not None},
        )
    return found


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
