"""What every export is made of: the run that a best configuration describes, and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from study.basics.errors import UserError
from study.basics.text_safety import one_line

DEFAULT_MAX_GRAD_NORM = 1.0
_LARGEST_MICRO_BATCH = 8
_MOST_CLASSES = 50


class CannotExpressError(UserError):
    """A tool has nothing for a configuration; the message is the reason, a sentence or two."""


@dataclass(frozen=True)
class Export:
    """A configuration as another tool reads it.

    Attributes:
        text: the main file.
        name: what to call it.
        siblings: further files by name, beside the main one; some tools need them.
        notes: what the tool does otherwise than the study, or cannot express, a sentence each; they
            are in `text` too where its format has comments.
    """

    text: str
    name: str
    siblings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A best configuration's content (`BestConfiguration.content`), asked for by meaning."""

    content: Mapping[str, Any]

    def section(self, name: str) -> Mapping[str, Any]:
        """A part of the content; empty where it has none."""
        return self.content.get(name) or {}

    @property
    def training(self) -> Mapping[str, Any]:
        return self.section("training")

    @property
    def arm(self) -> str:
        return str(self.content["arm"])

    @property
    def classifies(self) -> bool:
        return self.content.get("task") == "sequence-classification"

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a classifier, by id; empty for a language model."""
        return tuple(self.section("data").get("label_names") or ()) if self.classifies else ()

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(self.section("run")["steps"])

    @property
    def evaluations(self) -> int:
        return min(self.steps, int(self.training.get("evaluations") or 1))

    @property
    def learning_rate(self) -> float:
        return float(self.section("hyperparameters")["learning_rate"])

    @property
    def warmup_steps(self) -> int:
        """Steps of the linear ramp, as `study.training.schedule` counts them."""
        return round(float(self.section("hyperparameters").get("warmup_ratio", 0)) * self.steps)

    @property
    def max_grad_norm(self) -> float:
        """0 clips nothing."""
        chosen = self.section("hyperparameters").get("max_grad_norm", DEFAULT_MAX_GRAD_NORM)
        return float(chosen)

    @property
    def weight_decay(self) -> float:
        settings = {**self.training, **self.section("hyperparameters")}
        return float(settings.get("weight_decay", 0.0))

    @property
    def betas(self) -> tuple[float, float]:
        first, second = self.training.get("betas", (0.9, 0.999))
        return float(first), float(self.section("hyperparameters").get("beta2", second))

    @property
    def bf16(self) -> bool:
        """Whether the trial trained in bf16, ``auto`` resolved by what its engine was given."""
        engine = self.section("deepspeed").get("bf16") or {}
        return bool(engine.get("enabled", self.training.get("precision") == "bf16"))

    @property
    def workers(self) -> int:
        return int(self.section("resources").get("workers_per_trial", 1))

    @property
    def global_batch_size(self) -> int:
        """Examples per optimizer step over all workers."""
        return int(self.training["global_batch_size"])

    @property
    def micro_batch_size(self) -> int:
        """Examples per forward pass on one worker: the most that the trial allowed and that fill
        its share of the global batch evenly."""
        share = max(1, self.global_batch_size // self.workers)
        limit = (
            self.training.get("micro_batch_size_per_worker")
            or self.section("deepspeed").get("train_micro_batch_size_per_gpu")
            or _LARGEST_MICRO_BATCH
        )
        return next(size for size in range(min(share, int(limit)), 0, -1) if share % size == 0)

    @property
    def accumulation(self) -> int:
        """Forward passes of one worker per optimizer step."""
        return max(1, self.global_batch_size // (self.micro_batch_size * self.workers))

    @property
    def seed(self) -> int:
        return int(self.section("seeds").get("trial", 0))


def loading(run: Run, dtype: str) -> str:
    """The call that loads the model as a trial does."""
    model = run.section("model")
    auto = "AutoModelForSequenceClassification" if run.classifies else "AutoModelForCausalLM"
    options = [repr(str(model["path"]))]
    if model.get("revision"):
        options.append(f"revision={model['revision']!r}")
    if run.classes:
        options.append(f"num_labels={len(run.classes)}")
    options.append(f"attn_implementation={model.get('attention', 'sdpa')!r}")
    options.append(f"dtype={dtype!r}")
    if model.get("trust_remote_code"):
        options.append("trust_remote_code=True")
    return f"{auto}.from_pretrained({', '.join(options)})"


def class_notes(run: Run) -> list[str]:
    """How a classifier's labels are counted, and what its padding is, a sentence each."""
    if not run.classes:
        return []
    order = ", ".join(map(repr, run.classes))
    if len(run.classes) > _MOST_CLASSES:
        order = "as data.label_names of --format study has them"
    return [
        f"`labels` are the classes' numbers from 0, in this order: {order}.",
        "Set the model's config.pad_token_id to the tokenizer's: a decoder classifies at the last "
        "token that is not padding.",
    ]


def comments(sentences: Sequence[str]) -> str:
    """Lines of YAML comments, one for each sentence."""
    return "".join(f"# {one_line(' '.join(sentence.split()))}\n" for sentence in sentences)
