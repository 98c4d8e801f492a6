"""Losses from logits: sums and counts, so that a mean over any set of examples can be formed.

Labels follow Hugging Face: for a causal LM they are aligned with `input_ids` (the shift is done
here) and -100 carries no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

IGNORED = -100
_CHUNK_ELEMENTS = 2**24
"""Scalars of logits turned into fp32 at once (64 MiB)."""


class TaskLoss(Protocol):
    """Loss of one task, in nats."""

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Targets in the batch: what the loss is averaged over."""

    def total(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Summed loss over the batch's targets, a scalar in fp32."""

    def per_example(self, logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed loss and number of targets of each example, both of shape (batch,)."""


class CausalLmLoss:
    """Negative log-likelihood of the next token.

    Logits are (batch, sequence, vocabulary) in any float dtype, labels (batch, sequence).
    """

    def count(self, batch: Mapping[str, Tensor]) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def total(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return _row_nll(logits, _shifted(batch["labels"])).sum()

    def per_example(self, logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        targets = _shifted(batch["labels"])
        losses = _row_nll(logits, targets)
        return losses.sum(dim=1), (targets != IGNORED).sum(dim=1)


class ClassificationLoss:
    """Cross entropy of the label, one target per example."""

    def count(self, batch: Mapping[str, Tensor]) -> int:
        return batch["labels"].numel()

    def total(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return classification_losses(logits, batch["labels"]).sum()

    def per_example(self, logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        labels = batch["labels"]
        return classification_losses(logits, labels), torch.ones_like(labels)


def make_loss(task: str) -> TaskLoss:
    """The loss of ``causal-lm`` or ``sequence-classification``."""
    return ClassificationLoss() if task == "sequence-classification" else CausalLmLoss()


def classification_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy per example in nats, fp32, shape (batch,), from (batch, classes) logits."""
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def _shifted(labels: Tensor) -> Tensor:
    # Moving the labels leaves the logits contiguous: slicing them would copy the largest tensor.
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def _row_nll(logits: Tensor, targets: Tensor) -> Tensor:
    rows = _NegativeLogLikelihood.apply(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    return rows.view(targets.shape)


class _NegativeLogLikelihood(torch.autograd.Function):
    """-log softmax(logits)[target] per row, 0 where the target is ignored.

    In fp32, chunk by chunk, forward and backward: torch's cross entropy keeps an fp32 copy of all
    logits for the backward pass, four bytes per token and vocabulary entry.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        losses = torch.empty(targets.shape, dtype=torch.float32, device=logits.device)
        log_totals = torch.empty_like(losses)
        for rows in _chunks(logits):
            chunk, target = logits[rows].float(), targets[rows]
            log_totals[rows] = chunk.logsumexp(dim=1)
            picked = chunk.gather(1, target.clamp(min=0)[:, None])[:, 0]
            losses[rows] = torch.where(target == IGNORED, 0.0, log_totals[rows] - picked)
        ctx.save_for_backward(logits, targets, log_totals)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        logits, targets, log_totals = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for rows in _chunks(logits):
            target = targets[rows]
            weight = torch.where(target == IGNORED, 0.0, grad_outputs[0][rows])
            chunk = (logits[rows].float() - log_totals[rows, None]).exp_()
            picked = target.clamp(min=0)[:, None]
            chunk.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=chunk.dtype))
            gradient[rows] = chunk.mul_(weight[:, None]).to(gradient.dtype)
        return gradient, None


def _chunks(logits: Tensor) -> list[slice]:
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, logits.shape[0], rows)]
