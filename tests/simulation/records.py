"""Measurements and outcomes of simulated trials, as a worker would report them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from study.protocol.records import (
    Measurement,
    PhaseSummary,
    PrefixCacheUse,
    TrialOutcome,
    TrialSpec,
)

PARAMETERS = 1_000_000
SETUP_SECONDS = 2.0
FALL = 1.0
"""Nats that a learning curve falls over a trial, beside its noise."""
_MEMORY = {"full": 20 * 2**30, "lift": 12 * 2**30}
_GROUPS = 4


def seconds_of(spec: TrialSpec, lift_cost: float, luck: float) -> float:
    """Device-seconds of a trial with an empty prefix cache.

    Args:
        lift_cost: LIFT's over full's.
        luck: standard normal.
    """
    full = SETUP_SECONDS + 0.05 * max(100.0, 3 * spec.size / 8)
    return full * (lift_cost if spec.arm == "lift" else 1.0) * math.exp(0.03 * luck)


def make_measurements(
    spec: TrialSpec, score: float, speed: float, noise: Sequence[float] | None, seconds: float
) -> tuple[Measurement, ...]:
    """A learning curve that falls towards `score` and has it at the end.

    Args:
        noise: (evaluations,) nats, of every evaluation but the last; never below `score`.
    """
    count = len(spec.evaluation_steps)
    rate = float(spec.hyperparameters["learning_rate"])
    peak = _MEMORY[spec.arm]
    phase = 0.0 if spec.arm == "full" else 0.8 * _GROUPS / count
    found = []
    for k, (step, above) in enumerate(zip(spec.evaluation_steps, _fall(speed, count), strict=True)):
        if noise is not None and k < count - 1:
            above = abs(above + noise[k])
        done = (k + 1) / count
        found.append(
            Measurement(
                step,
                step * 736,
                step * 8 / spec.size,
                int(k * phase),
                score + above - 0.05,
                score + above,
                rate * (1.0 - done),
                1.2,
                0.4,
                6700.0,
                seconds * done,
                seconds * done,
                peak,
            )
        )
    return tuple(found)


@cache
def _fall(speed: float, count: int) -> tuple[float, ...]:
    """How far above its end a learning curve is at each evaluation, nats."""
    return (*(FALL * math.exp(-speed * k / count) for k in range(1, count)), 0.0)


def make_outcome(
    spec: TrialSpec,
    score: float | None,
    seconds: float,
    test_loss: float | None = None,
    test_losses: Sequence[float] = (),
    retention_loss: float | None = None,
) -> TrialOutcome:
    """`score` None: the loss became NaN after the first evaluation."""
    lost = score is None
    return TrialOutcome(
        status="diverged" if lost else "finished",
        reason=f"the loss became NaN at step {spec.steps // 4}" if lost else "",
        score=score,
        best_step=None if lost else spec.steps,
        phases=() if lost else _phases(spec.arm, spec.steps),
        train_seconds=0.8 * seconds,
        device_seconds=0.25 * seconds if lost else seconds,
        prefix_cache=_CACHE if spec.arm == "lift" else None,
        test_loss=test_loss,
        test_losses=tuple(test_losses),
        retention_loss=retention_loss,
    )


_CACHE = PrefixCacheUse("on", hits=600, misses=200, fill_seconds=0.2, seconds_saved=0.5)


@cache
def _phases(arm: str, steps: int) -> tuple[PhaseSummary, ...]:
    peak = _MEMORY[arm]
    if arm == "full":
        return (PhaseSummary("all parameters", steps, PARAMETERS, 0.4, 0.05 * steps, peak),)
    part = PARAMETERS // _GROUPS
    return tuple(
        PhaseSummary(f"group {g}", len(range(_GROUPS - g, steps, _GROUPS)), part, 0.2, 1.0, peak)
        for g in range(_GROUPS, 0, -1)
    )
