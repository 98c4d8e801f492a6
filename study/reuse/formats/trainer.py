"""Arguments of transformers' Trainer, which other tools read as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import Any

from study.basics.text_format import counted
from study.reuse.formats.base import Run


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule of transformers'.

    Attributes:
        type: ``lr_scheduler_type``.
        kwargs: ``lr_scheduler_kwargs``.
        warmup_steps: ``warmup_steps``.
        notes: how it differs from the study's; none: it does not.
    """

    type: str
    kwargs: Mapping[str, float]
    warmup_steps: int
    notes: tuple[str, ...] = ()


def nearest_schedule(kind: str, warmup: int, steps: int) -> Schedule:
    """The schedule of transformers 5 that comes nearest to `study.training.schedule`.

    The study ramps 1/w, 2/w, ..., 1 and would reach 0 one step after the last. Most of
    transformers' schedules ramp 0, 1/w, ..., so that the first step does nothing.

    Args:
        kind: ``cosine``, ``linear`` or ``constant``, after the warmup.
        warmup: steps of the ramp.
        steps: of the run.
    """
    if kind == "constant":
        if warmup < 2:
            return Schedule("constant", {}, 0)
        # Its ramp starts at min_lr_ratio: the study's own, to the last digit.
        # All three lengths: LLaMA-Factory would fill in its own for one that is missing.
        kwargs = {
            "num_stable_steps": steps - warmup + 1,
            "num_decay_steps": 0,
            "min_lr_ratio": 1 / warmup,
        }
        return Schedule("warmup_stable_decay", kwargs, warmup - 1)
    if warmup == 0:
        return Schedule(kind, {}, 0)
    if kind == "cosine":
        # It decays one step ahead. A little less than half a wave ends on the study's last rate.
        left = steps - warmup
        kwargs = {"min_lr_rate": 0.0, "num_cycles": 0.5 * left / (left + 1)}
        off = max((_cosine(k, left) - _cosine(k + 1, left + 1) for k in range(left)), default=0)
        note = (
            "The warmup is the study's; after it the learning rate is lower than in the study, by "
            f"at most {100 * off:.2g} % of its peak."
        )
        return Schedule("cosine_warmup_with_min_lr", kwargs, warmup, (note,))
    note = (
        "The linear schedule warms up one step later than the study: its first step has learning "
        "rate 0; after the warmup both are the same."
    )
    return Schedule("linear", {}, warmup, (note,))


def training_arguments(run: Run) -> dict[str, Any]:
    """Optimizer, schedule, batch, precision, evaluation and seeds, by the names of
    `transformers.TrainingArguments`; without the output folder, DeepSpeed and data."""
    schedule = nearest_schedule(run.training.schedule, run.warmup_steps, run.steps)
    every = max(1, run.steps // run.evaluations)
    return {
        "learning_rate": run.learning_rate,
        "lr_scheduler_type": schedule.type,
        **({"lr_scheduler_kwargs": dict(schedule.kwargs)} if schedule.kwargs else {}),
        "warmup_steps": schedule.warmup_steps,
        "max_steps": run.steps,
        "per_device_train_batch_size": run.micro_batch_size,
        "gradient_accumulation_steps": run.accumulation,
        "max_grad_norm": run.max_grad_norm,
        **_optimizer(run),
        "weight_decay": run.weight_decay,
        "bf16": run.bf16,
        **_checkpointing(run),
        "seed": run.seed,
        "data_seed": run.seed if run.best.seeds.order is None else run.best.seeds.order,
        "per_device_eval_batch_size": run.micro_batch_size,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "logging_steps": min(10, every),
    }


def training_notes(run: Run) -> list[str]:
    """What Trainer does otherwise than the study, a sentence each."""
    schedule = nearest_schedule(run.training.schedule, run.warmup_steps, run.steps)
    batch = f"{run.micro_batch_size} x {run.accumulation} x {run.workers}"
    notes = [
        f"It takes {counted(run.steps, 'step')} as for "
        f"{counted(run.best.dataset_size, 'example')}: change max_steps and the warmup alike "
        "for another number of examples.",
        f"A step has {counted(run.global_batch_size, 'example')} on "
        f"{counted(run.workers, 'device')} ({batch}: per forward pass, accumulated, devices): "
        "change the accumulation with the number of devices.",
        *schedule.notes,
        f"{_averaged(run)}; forward passes hold a fixed number of examples, where the study sorts "
        "each step's by length.",
        "At an epoch's end a step takes what is left of the epoch, where the study fills it from "
        "the next one, and the order of examples comes from another generator.",
    ]
    if not run.classifies:
        notes.append(
            "The evaluation loss weights a batch by its examples; the study by its tokens."
        )
    if run.steps % run.evaluations:
        notes.append(
            f"Evaluations are every {run.steps // run.evaluations} steps; the study spreads "
            f"{run.evaluations} evenly and has the last one at the end."
        )
    return notes


def _averaged(run: Run) -> str:
    if run.classifies:
        return "In the study losses are averaged over the examples of the whole step"
    return "Losses are averaged over the tokens of the whole step, as in the study"


def deepspeed_section(run: Run) -> dict[str, Any] | None:
    """DeepSpeed's configuration with the batch, clipping and precision left to the arguments; None
    where the study used no ZeRO (stage 0)."""
    stage = run.best.zero.stage
    if stage == 0:
        return None
    resolved = dict(run.best.deepspeed)
    for name in ("train_batch_size", "steps_per_print", "wall_clock_breakdown"):
        resolved.pop(name, None)
    resolved.setdefault("zero_optimization", {"stage": stage})
    return resolved | {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
    }


def _optimizer(run: Run) -> dict[str, Any]:
    if run.training.optimizer == "sgd":
        return {"optim": "sgd", "optim_args": f"momentum={run.training.momentum}"}
    first, second = run.betas
    return {
        "optim": "adamw_torch_fused",
        "adam_beta1": first,
        "adam_beta2": second,
        "adam_epsilon": run.training.epsilon,
    }


def _checkpointing(run: Run) -> dict[str, Any]:
    if not run.best.model.gradient_checkpointing:
        return {}
    return {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }


def _cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + cos(pi * step / steps))
