"""Learning rate per optimizer step, as a pure function (DeepSpeed's schedules restart with each
engine, and LIFT builds one per phase)."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

from study.strategies.base import Phase


def learning_rate(
    step: int,
    total_steps: int,
    peak: float,
    warmup_ratio: float,
    schedule: str,
    phases: Sequence[Phase],
) -> float:
    """Learning rate of one optimizer step.

    One warmup-and-decay envelope over the whole trial, times a linear re-warmup at the start of
    each phase from the second on; the factors of single parameters come on top. No step has rate
    0: a linear ramp of w steps goes 1/w, 2/w, ..., 1, and the decay would reach 0 one step after
    the last.

    Args:
        step: 0-based index of the step about to be made, below `total_steps`.
        total_steps: optimizer steps of the trial; the phases' steps add up to it.
        peak: learning rate at the end of the warmup.
        warmup_ratio: share of `total_steps` that warms up.
        schedule: ``cosine``, ``linear`` or ``constant``: what follows the warmup.

    Raises:
        ValueError: a step outside the trial or an unknown schedule.
    """
    start = 0
    for index, phase in enumerate(phases):
        if start <= step < start + phase.steps:
            envelope = _envelope(step, total_steps, round(warmup_ratio * total_steps), schedule)
            rewarmup = _ramp(step - start, phase.rewarmup_steps) if index else 1.0
            return peak * envelope * rewarmup
        start += phase.steps
    raise ValueError(f"step {step} lies outside the trial's {start} steps")


def _ramp(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / steps) if steps else 1.0


def _envelope(step: int, total_steps: int, warmup_steps: int, schedule: str) -> float:
    if step < warmup_steps:
        return _ramp(step, warmup_steps)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if schedule == "cosine":
        return 0.5 * (1 + cos(pi * progress))
    if schedule == "linear":
        return 1 - progress
    if schedule == "constant":
        return 1.0
    raise ValueError(f"schedule must be cosine, linear or constant, found {schedule!r}")
