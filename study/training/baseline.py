"""What a study measures once, before its trials: the base model's losses, and what a step of
each arm costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from study.config import StudyConfig
from study.records import BaseModelRecord
from study.strategies import make_strategy
from study.strategies.base import BlockLayout, Phase
from study.training.batches import TrainBatches, collate
from study.training.data import class_prior_losses
from study.training.engine import PhaseEngine
from study.training.evaluate import evaluate_split, plain_forward
from study.training.layout import find_layout
from study.training.losses import make_loss
from study.training.model import new_head
from study.training.placement import Placement
from study.training.setup import prepare_model, seed_everything
from study.training.tokenised import StudyData
from study.training.zero import resolve_micro_batch_size

_WARMUP_STEPS = 2
_TIMED_STEPS = 5
# Small enough to leave the weights where they are; the optimizer does the same work.
_PROBE_LEARNING_RATE = 1e-12


@dataclass(frozen=True)
class Baseline:
    """What the baseline job found.

    Attributes:
        base: losses of the untouched model.
        model_parameters: scalars in the model.
        cost_ratio: seconds per full step over seconds per LIFT step; None if the study's basis
            does not need it.
    """

    base: BaseModelRecord
    model_parameters: int
    cost_ratio: float | None


def measure_baseline(config: StudyConfig, data: StudyData, placement: Placement) -> Baseline:
    """Run on every rank of a worker group like a trial's; all ranks get the same answer."""
    seed_everything(config.seed)
    model = prepare_model(config, data, placement, config.seed)
    base = _base_losses(config, data, placement, model)
    parameters = sum(p.numel() for p in model.parameters())
    ratio = None
    if config.comparison == "device_seconds" and len(config.arms.names) == 2:
        ratio = _cost_ratio(config, data, placement, model)
    return Baseline(base, parameters, ratio)


def _base_losses(
    config: StudyConfig, data: StudyData, placement: Placement, model: PreTrainedModel
) -> BaseModelRecord:
    if config.task == "sequence-classification":
        # The head is random: its loss says nothing. The class prior is what must be beaten.
        prior = {s: class_prior_losses(data.pool, getattr(data, s)) for s in ("validation", "test")}
        means = {name: float(np.mean(losses)) for name, losses in prior.items()}
        return BaseModelRecord(means["validation"], means["test"], None, tuple(prior["test"]))
    forward = plain_forward(model)
    size = resolve_micro_batch_size(config.training, placement.world_size)
    validation, test, retention = (
        evaluate_split(
            forward,
            split,
            pad_token_id=data.pad_token_id,
            micro_batch_size=size,
            placement=placement,
        )
        if split is not None
        else None
        for split in (data.validation, data.test, data.retention)
    )
    assert validation is not None and test is not None  # both splits always exist
    return BaseModelRecord(
        validation.mean, test.mean, retention.mean if retention else None, test.per_example
    )


def _cost_ratio(
    config: StudyConfig, data: StudyData, placement: Placement, model: PreTrainedModel
) -> float:
    """Median seconds per step in full, over LIFT's mean of its phases' medians."""
    model.train()
    layout = find_layout(model, new_head(model))
    count = min(len(data.pool), config.training.global_batch_size * _TIMED_STEPS)
    batches = TrainBatches(
        data.pool,
        np.arange(count),
        config.seed,
        config.training.global_batch_size,
        placement.rank,
        placement.world_size,
        resolve_micro_batch_size(config.training, placement.world_size),
    )

    def seconds(phases: Sequence[Phase]) -> float:
        timed = [_seconds_per_step(config, data, placement, model, batches, p) for p in phases]
        return placement.max(statistics.fmean(timed))

    return seconds(_phases(config, "full", layout)) / seconds(_phases(config, "lift", layout))


def _phases(config: StudyConfig, arm: str, layout: BlockLayout) -> tuple[Phase, ...]:
    """One sweep of the arm: repeated sweeps cost the same per step."""
    options = getattr(config.arms, arm).model_dump()
    strategy = make_strategy(arm, options, {"sweeps": 1} if arm == "lift" else {})
    return strategy.phases(layout, 1000)


def _seconds_per_step(
    config: StudyConfig,
    data: StudyData,
    placement: Placement,
    model: PreTrainedModel,
    batches: TrainBatches,
    phase: Phase,
) -> float:
    """Median seconds of a training step in `phase`, batches included."""
    loss = make_loss(config.task)
    timed = []
    with PhaseEngine(
        model,
        phase.parameters,
        training=config.training,
        zero=config.zero,
        hyperparameters={"learning_rate": _PROBE_LEARNING_RATE, "max_grad_norm": 1.0},
        precision=placement.precision(config.training.precision),
        device=placement.device,
        micro_batch_size=resolve_micro_batch_size(config.training, placement.world_size),
        world_size=placement.world_size,
    ) as engine:
        for step in range(_WARMUP_STEPS + _TIMED_STEPS):
            before = time.perf_counter()
            batch = batches.global_batch(step)
            micro_batches = [
                collate(data.pool, ids, data.pad_token_id) for ids in batch.micro_batches
            ]
            engine.train_step(micro_batches, loss, _PROBE_LEARNING_RATE)
            if placement.device.type == "cuda":
                torch.cuda.synchronize(placement.device)
            timed.append(time.perf_counter() - before)
    return statistics.median(timed[_WARMUP_STEPS:])
