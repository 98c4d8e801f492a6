"""What a study measures once, before its trials: the base model's losses, and what a step of
each arm costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from study.basics.errors import ModelError
from study.config.load import StudyConfig
from study.protocol.records import BaseModelRecord, StepCosts
from study.protocol.steps import needs_probe
from study.training.data.prepare import class_prior_losses
from study.training.data.tokenised import StudyData
from study.training.evaluate import evaluate_split, plain_forward
from study.training.feed import Feed
from study.training.model.base_model import BaseModel
from study.training.model.load import new_head
from study.training.placement import Placement
from study.training.probe import measure_step_costs
from study.training.setup import seed_everything


@dataclass(frozen=True)
class Baseline:
    """What the baseline job found.

    Attributes:
        base: losses of the untouched model.
        model_parameters: scalars in the model.
        probe: what steps cost in each arm; None if the study's basis does not need it.
    """

    base: BaseModelRecord
    model_parameters: int
    probe: StepCosts | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        probe = None if self.probe is None else self.probe.to_dict()
        return {
            "base": self.base.to_dict(), "model_parameters": self.model_parameters, "probe": probe,
        }  # fmt: skip


def measure_baseline(
    config: StudyConfig,
    data: StudyData,
    placement: Placement,
    base_model: BaseModel | None = None,
) -> Baseline:
    """Run on every rank of a worker group like a trial's; all ranks get the same answer."""
    seed_everything(config.seed)
    model = (base_model or BaseModel(config, data.summary.label_names, placement)).fresh(
        config.seed
    )
    base = _base_losses(config, data, placement, model)
    parameters = sum(p.numel() for p in model.parameters())
    probe = None
    if needs_probe(config):
        probe = measure_step_costs(config, data, placement, model)
    return Baseline(base, parameters, probe)


def _base_losses(
    config: StudyConfig, data: StudyData, placement: Placement, model: PreTrainedModel
) -> BaseModelRecord:
    if config.task == "sequence-classification" and new_head(model):
        # The head is random: its loss says nothing. The class prior is what must be beaten.
        prior = {s: class_prior_losses(data.pool, getattr(data, s)) for s in ("validation", "test")}
        means = {name: float(np.mean(losses)) for name, losses in prior.items()}
        return BaseModelRecord(
            means["validation"],
            means["test"],
            None,
            tuple(prior["test"]),
            (1,) * len(prior["test"]),
        )
    forward, feed = plain_forward(model), Feed(config, data, placement)
    validation = evaluate_split(forward, "validation", feed, placement)
    if not math.isfinite(validation.mean):
        raise ModelError(
            f"model.path: {config.model.path} has a loss of {validation.mean} before any training: "
            "its weights hold numbers that are none, or too large. Download or save it again."
        )
    test = evaluate_split(forward, "test", feed, placement)
    retention = evaluate_split(forward, "retention", feed, placement) if data.retention else None
    return BaseModelRecord(
        validation.mean,
        test.mean,
        retention.mean if retention else None,
        test.per_example,
        tuple(map(int, test.counts)),
        own_head=config.task == "sequence-classification",
    )
