"""LIFT in plain torch, on whole global batches: no DeepSpeed, no strategy, no layout, no schedule.

What a phase trains is written by hand, as words: ``3 2 top`` for blocks 3 and 2, the final norm
and the head. Which parameter belongs to which word is read off its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.8, 0.95), 1.0, 0.5
# With the usual 1e-8 Adam divides rounding noise by rounding noise where the exact gradient is
# zero (a key's bias, for one), and weights could not be compared.
EPSILON = 1e-5
_BLOCK = re.compile(r"\.(?:layers?|h)\.(\d+)\.")
_CLASSIFIER = re.compile(r"(^|\.)(classifier|pre_classifier|pooler|score)\.")
_EMBEDDINGS = re.compile(r"embed|\.wte\.|\.wpe\.|project_in")


@dataclass(frozen=True)
class HandPhase:
    """One phase.

    Attributes:
        trains: words: block numbers; ``embeddings``, a tied head with them; ``top``: everything
            above the blocks but a tied head; ``norm``: the final one; ``head``: the output
            matrix, tied or not.
        rates: learning rate of each step.
        factors: of single words' rates; of all others 1.
    """

    trains: str
    rates: tuple[float, ...]
    factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Course:
    """What happened.

    Attributes:
        losses: mean loss of each step's global batch, before the step.
        norms: gradient norm over what trains, before clipping.
        evaluation: loss of the evaluation batch at the end.
        weights: the last ones, by name.
    """

    losses: list[float]
    norms: list[float]
    evaluation: float
    weights: dict[str, Tensor]


def train_plainly(
    model: PreTrainedModel,
    phases: Sequence[HandPhase],
    batches: Iterable[Mapping[str, Tensor]],
    evaluation: Mapping[str, Tensor],
) -> Course:
    """AdamW, new in each phase, on one whole global batch per step; matrices decay."""
    losses: list[float] = []
    norms: list[float] = []
    stream = iter(batches)
    for phase in phases:
        names = parameters_of(model, phase.trains)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        active = [p for _, p in trained]
        slowed = [phase.factors.get(_part(name), 1.0) for name, _ in trained]
        optimizer = torch.optim.AdamW(
            [{"params": [p], "weight_decay": WEIGHT_DECAY * (p.ndim > 1)} for p in active],
            betas=BETAS,
            eps=EPSILON,
        )
        model.train()
        for rate in phase.rates:
            for group, factor in zip(optimizer.param_groups, slowed, strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad()
            loss = mean_loss(model, next(stream))
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(active, MAX_GRAD_NORM)
            optimizer.step()
            losses.append(loss.item())
            norms.append(norm.item())
    model.eval()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    with torch.no_grad():
        return Course(losses, norms, mean_loss(model, evaluation).item(), weights)


def parameters_of(model: PreTrainedModel, trains: str) -> set[str]:
    """Names of the parameters that the words stand for; a classifier always trains."""
    words = {"classifier", *trains.split()}
    if "top" in words:
        words |= {"norm", "lm_head"}
    output = model.get_output_embeddings()  # None: a classifier
    matrix = {id(p) for p in output.parameters()} if output and "head" in words else set()
    return {n for n, p in model.named_parameters() if _part(n) in words or id(p) in matrix}


def mean_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Nats per target: the next token, or the example's class."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"]
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    return cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100)


def _part(name: str) -> str:
    if block := _BLOCK.search(name):
        return block[1]
    if _CLASSIFIER.search(name):
        return "classifier"
    if _EMBEDDINGS.search(name):
        return "embeddings"
    return "lm_head" if name.startswith("lm_head.") else "norm"
