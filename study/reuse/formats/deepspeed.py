"""The JSON that `deepspeed.initialize` takes."""

from __future__ import annotations

import json

from study.reuse.best_file import Best
from study.reuse.formats.base import CannotExpressError, Export, Run, class_notes, loading
from study.reuse.formats.provenance import provenance
from study.strategies import arm_label, trains_all

BESIDE = "DeepSpeed's configuration is that of an engine and says nothing of what trains when"
"""Why there are strategies that it cannot express."""


def to_deepspeed(best: Best) -> Export:
    """What the trial's engine was given, for any number of devices.

    LIFT is not refused: this is the configuration of an engine, and LIFT uses the same one for an
    engine per phase. What trains in which phase is in the notes, and no key of DeepSpeed's.

    Raises:
        CannotExpressError: the trial recorded no configuration.
    """
    run = Run(best)
    resolved = dict(run.best.deepspeed)
    if not resolved:
        trials = ", ".join(run.best.chosen.trials)
        raise CannotExpressError(f"trial {trials} has no DeepSpeed configuration on record.")
    # DeepSpeed derives the accumulation from these two and from how many processes there are.
    resolved.pop("gradient_accumulation_steps", None)
    resolved["train_batch_size"] = run.global_batch_size
    resolved["train_micro_batch_size_per_gpu"] = run.micro_batch_size
    # Interpolated between two trials it is neither's.
    resolved["gradient_clipping"] = run.max_grad_norm
    notes = _notes(run)
    text = json.dumps(resolved, indent=2) + "\n"
    about = "".join(f"{' '.join(line.split())}\n" for line in [*provenance(best), *notes])
    return Export(text, "deepspeed.json", {"deepspeed.txt": about}, tuple(notes))


def _notes(run: Run) -> list[str]:
    beta1, beta2 = run.betas
    steps = f"{run.steps:,} steps, {run.warmup_steps} of them warmup"
    kind = run.training.schedule
    name = run.training.optimizer
    details = (
        f"momentum {run.training.momentum}"
        if name == "sgd"
        else f"betas {beta1} and {beta2}, epsilon {run.training.epsilon}"
    )
    notes = [
        "For DeepSpeed: deepspeed.initialize(model=..., optimizer=..., config='deepspeed.json').",
        f"gradient_accumulation_steps is left out, so DeepSpeed derives it for any number of "
        f"devices that divides {run.global_batch_size // run.micro_batch_size}; for others lower "
        "train_micro_batch_size_per_gpu.",
        f"The optimizer is not in it, as in the study, which gives its own: torch {name}, peak "
        f"learning rate {run.learning_rate}, {details}, weight decay {run.weight_decay}, none on "
        "vectors.",
        f"The schedule is not in it either, but set before every step: {kind} over {steps}.",
        f"The study averages losses over the {'examples' if run.classifies else 'tokens'} of the "
        "whole step, all passes and devices together, and calls engine.backward(loss, "
        "scale_wrt_gas=False).",
        f"It loads the model with {loading(run, 'bfloat16' if run.bf16 else 'float32')}.",
        *class_notes(run),
    ]
    if not trains_all(run.arm):
        named = [f"{p.name}: {p.steps}" for p in run.best.run.phases or ()]
        phases = ", ".join(named) or "not on record"
        notes += [
            f"{arm_label(run.arm)} builds an engine of its own in each phase, with an optimizer "
            "over that phase's parameters only and all others frozen; switching requires_grad in a "
            "live ZeRO engine trains the wrong ones.",
            "The buckets are sized for the first phase and work in all.",
            f"The phases and their steps: {phases}.",
            "`study train` does all of this with --format study.",
        ]
    return notes
