"""What every export is made of: the run that a best configuration describes, and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from study.basics.errors import UserError
from study.basics.text_safety import one_line
from study.config.models import TrainingConfig
from study.reuse.best_file import Best

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
    """A best configuration, asked for by meaning."""

    best: Best

    @property
    def training(self) -> TrainingConfig:
        return self.best.training

    @property
    def arm(self) -> str:
        return self.best.arm

    @property
    def classifies(self) -> bool:
        return self.best.task == "sequence-classification"

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a classifier, by id; empty for a language model."""
        return tuple(self.best.data.label_names) if self.classifies else ()

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.best.run.steps

    @property
    def evaluations(self) -> int:
        return min(self.steps, self.training.evaluations)

    @property
    def learning_rate(self) -> float:
        return float(self.best.hyperparameters["learning_rate"])

    @property
    def warmup_steps(self) -> int:
        """Steps of the linear ramp, as `study.training.schedule` counts them."""
        return round(float(self.best.hyperparameters.get("warmup_ratio", 0)) * self.steps)

    @property
    def max_grad_norm(self) -> float:
        """0 clips nothing."""
        return float(self.best.hyperparameters.get("max_grad_norm", DEFAULT_MAX_GRAD_NORM))

    @property
    def weight_decay(self) -> float:
        return float(self.best.hyperparameters.get("weight_decay", self.training.weight_decay))

    @property
    def betas(self) -> tuple[float, float]:
        first, second = self.training.betas
        return first, float(self.best.hyperparameters.get("beta2", second))

    @property
    def bf16(self) -> bool:
        """Whether the trial trained in bf16, ``auto`` resolved by what its engine was given."""
        engine = self.best.deepspeed.get("bf16") or {}
        return bool(engine.get("enabled", self.training.precision == "bf16"))

    @property
    def workers(self) -> int:
        return self.best.resources.workers_per_trial

    @property
    def global_batch_size(self) -> int:
        """Examples per optimizer step over all workers."""
        return self.training.global_batch_size

    @property
    def micro_batch_size(self) -> int:
        """Examples per forward pass on one worker: the most that the trial allowed and that fill
        its share of the global batch evenly."""
        share = max(1, self.global_batch_size // self.workers)
        limit = (
            self.training.micro_batch_size_per_worker
            or self.best.deepspeed.get("train_micro_batch_size_per_gpu")
            or _LARGEST_MICRO_BATCH
        )
        return next(size for size in range(min(share, int(limit)), 0, -1) if share % size == 0)

    @property
    def accumulation(self) -> int:
        """Forward passes of one worker per optimizer step."""
        return max(1, self.global_batch_size // (self.micro_batch_size * self.workers))

    @property
    def seed(self) -> int:
        return self.best.seeds.trial


def loading(run: Run, dtype: str) -> str:
    """The call that loads the model as a trial does."""
    model = run.best.model
    auto = "AutoModelForSequenceClassification" if run.classifies else "AutoModelForCausalLM"
    options = [repr(model.path)]
    if model.revision:
        options.append(f"revision={model.revision!r}")
    if run.classes:
        options.append(f"num_labels={len(run.classes)}")
    options.append(f"attn_implementation={model.attention!r}")
    options.append(f"dtype={dtype!r}")
    if model.trust_remote_code:
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
