"""Losses of a data split under a model, per example, reduced over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from study.training.data.tokenised import TokenisedSplit
from study.training.engine.engine import batch_to
from study.training.feed import Feed
from study.training.losses import make_loss
from study.training.placement import Placement

Forward = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]
"""Maps a collated batch to logits."""


@dataclass(frozen=True)
class SplitLosses:
    """A split's losses, equal on every rank.

    Attributes:
        sums: (examples,) float64, nats summed over each example's targets.
        counts: (examples,) targets per example; classification: ones.
        predictions: (examples,) predicted class ids; empty for language models.
    """

    sums: np.ndarray
    counts: np.ndarray
    predictions: np.ndarray

    @property
    def mean(self) -> float:
        """Nats per target token (classification: per example)."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def per_example(self) -> tuple[float, ...]:
        """Mean nats per target of each example, rounded to what float32 held."""
        return tuple(float(f"{v:.7g}") for v in self.sums / self.counts)


def evaluate_split(forward: Forward, name: str, feed: Feed, placement: Placement) -> SplitLosses:
    """Every example's loss, each computed on one rank and summed over all of them.

    All ranks make the same number of forward passes: ZeRO-3 gathers parameters in each.

    Args:
        name: of the split in `StudyData`.
    """
    split = feed.split(name)
    loss = make_loss("sequence-classification" if split.is_classification else "causal-lm")
    sums = torch.zeros(len(split), dtype=torch.float64)
    predictions = torch.zeros(len(split), dtype=torch.float64)
    with torch.no_grad():
        for batch in feed.evaluation_batches(name):
            inputs = batch_to(feed.collate(name, batch.ids), placement.device)
            logits = forward(inputs)
            losses = loss.per_example(logits, inputs)[0].double().cpu()
            counted = torch.as_tensor(batch.ids[: batch.counted])
            sums[counted] = losses[: batch.counted]
            if split.is_classification:
                classes = logits.argmax(dim=-1).double().cpu()
                predictions[counted] = classes[: batch.counted]
    # Each example belongs to one rank, so the sums add zeros to its value.
    placement.all_reduce(sums)
    placement.all_reduce(predictions)
    return SplitLosses(
        sums=sums.numpy(),
        counts=np.asarray(split.target_counts, dtype=np.int64),
        predictions=predictions.numpy().astype(np.int64)
        if split.is_classification
        else np.empty(0, dtype=np.int64),
    )


def plain_forward(model: torch.nn.Module) -> Forward:
    """The model itself in eval mode, outside any engine."""
    model.eval()

    def forward(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return model(**{k: v for k, v in batch.items() if k != "labels"}).logits

    return forward


def classification_metrics(split: TokenisedSplit, losses: SplitLosses) -> dict[str, float]:
    """Accuracy and macro-F1 (mean F1 over the classes that occur in the split's labels)."""
    if not split.is_classification:
        return {}
    labels = np.asarray([split.label(i) for i in range(len(split))])
    scores = []
    for label in np.unique(labels):
        hits = np.sum((labels == label) & (losses.predictions == label))
        scores.append(2 * hits / (np.sum(labels == label) + np.sum(losses.predictions == label)))
    return {
        "accuracy": float(np.mean(labels == losses.predictions)),
        "macro_f1": float(np.mean(scores)),
    }
