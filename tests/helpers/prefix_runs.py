"""Tiny LIFT runs with and without the prefix cache, on real engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from study.config.load import StudyConfig
from study.protocol.records import DataSummary, PrefixCacheUse
from study.strategies.base import Phase
from study.training.data.batches import TrainBatches, collate
from study.training.data.tokenised import StudyData, TokenisedSplit
from study.training.engine.engine import batch_to
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from study.training.model.load import new_head
from study.training.placement import Placement
from study.training.prefix.cache import PrefixCache
from study.training.prefix.open import open_prefix_cache
from tests.helpers.models import tiny_model
from tests.helpers.workers import GLOBAL_BATCH, group_phases, phase_engine

EXAMPLES = 24
STAGES = (0, 1, 2, 3)


def make_split(examples: int, seed: int, equal: bool = False, classes: int = 0) -> TokenisedSplit:
    generator = np.random.default_rng(seed)
    lengths = np.full(examples, 12) if equal else generator.integers(4, 24, examples)
    tokens = generator.integers(5, 261, lengths.sum()).astype(np.int32)
    targets = generator.integers(0, classes, examples) if classes else np.ones(examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenisedSplit(tokens, offsets, targets.astype(np.int32), classes or None, 24)


def make_data(equal: bool = False, classes: int = 0, seed: int = 0) -> StudyData:
    pool, validation = make_split(EXAMPLES, seed, equal, classes), make_split(6, 7, equal, classes)
    summary = DataSummary(f"data-{seed}-{equal}", EXAMPLES, 6, 6, 0, 0, 0, 0, 12.0, 11.0)
    return StudyData(pool, validation, validation, None, summary, 0, classes or None)


def make_config(folder: str | Path, stage: int = 2, **cache: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "cached",
            "model": {"path": "unused"},
            "data": {"train": "unused"},
            "dataset_sizes": [EXAMPLES],
            "arms": ["lift"],
            "zero": {"stage": stage},
            "prefix_cache": {"folder": str(folder), "min_free_gib": 0, **cache},
        }
    )


@dataclasses.dataclass
class Run:
    """Losses of every step and evaluation, and what the cache said."""

    losses: list[float]
    status: str
    use: PrefixCacheUse | None
    steps_with_misses: list[int]


def lift(
    model: PreTrainedModel,
    phases: Sequence[Phase],
    config: StudyConfig,
    data: StudyData,
    rank: int,
    world_size: int,
    during: Callable[[PrefixCache | None, int], None] | None = None,
) -> Run:
    """Train all phases on the model's device, with an evaluation after each step."""
    placement = Placement(model.device, rank, world_size)
    precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
    layout = find_layout(model, new_head(model) if hasattr(model, "study_new_head") else ())
    indices = np.arange(EXAMPLES)
    cache, status = open_prefix_cache(config, data, placement, model, layout, phases, indices)
    batches = TrainBatches(data.pool, indices, 3, GLOBAL_BATCH, rank, world_size, 2)
    loss = make_loss("sequence-classification" if data.num_labels else "causal-lm")
    run, step, misses = Run([], status, None, []), 0, 0

    def batch(name: str, ids: np.ndarray) -> dict[str, torch.Tensor]:
        if cache is not None:
            return cache.batch(name, ids)
        return collate(getattr(data, name), ids, data.pad_token_id)

    for number, phase in enumerate(phases):
        with phase_engine(
            model,
            phase.parameters,
            config.zero.stage,
            world_size,
            device=model.device,
            precision=precision,
        ) as engine:
            if cache is not None:
                cache.enter_phase(number, engine)
            for _ in range(phase.steps):
                mine = [batch("pool", ids) for ids in batches.global_batch(step).micro_batches]
                run.losses.append(engine.train_step(mine, loss, 1e-3).loss)
                if cache is not None and cache.counts.misses > misses:
                    run.steps_with_misses.append(step)
                    misses = cache.counts.misses
                for ids in np.split(np.arange(6), 3):
                    tensors = batch("validation", ids)
                    logits = engine.evaluate(tensors)
                    total = float(loss.total(logits, batch_to(tensors, model.device)))
                    run.losses.append(total / loss.count(tensors))
                misses = cache.counts.misses if cache is not None else 0
                if during is not None:
                    during(cache, step)
                step += 1
        if cache is not None:
            cache.leave()
    if cache is not None:
        run.use = cache.use()
        cache.close()
    return run


def shared_folder(own: str, rank: int) -> str:
    names = [own]
    torch.distributed.broadcast_object_list(names, src=0)
    return names[0]


def once(config: StudyConfig, data: StudyData | None = None, **options: Any) -> dict[str, Any]:
    """One run of a tiny model on one worker."""
    model = options.pop("model", None) or tiny_model()
    phases = group_phases(find_layout(model), 12, group_size=1)
    return dataclasses.asdict(lift(model, phases, config, data or make_data(), 0, 1, **options))


def compare(
    make_model: Any,
    options: dict[str, Any],
    data: StudyData,
    stage: int,
    rank: int,
    world_size: int,
    folder: str,
    steps: int = 12,
) -> dict[str, Any]:
    """The same run recomputed, with a cold cache and with a warm one."""
    runs = {}
    for kind in ("recomputed", "cold", "warm"):
        model = make_model()
        phases = group_phases(find_layout(model), steps, **options)
        config = make_config(folder, stage, enabled=False if kind == "recomputed" else "auto")
        runs[kind] = dataclasses.asdict(lift(model, phases, config, data, rank, world_size))
    return runs
