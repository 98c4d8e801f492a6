"""Which arm fits a device: by the peaks of its runs, by formula, and by runs that ran out of it.

An arm that fits has runs that show it. One that does not may have none: what it holds at least
follows from the model's size alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.cells.base import CellSummary, Gate
from study.analysis.rules import Pair
from study.analysis.verdict.records import Verdict
from study.config.load import StudyConfig
from study.protocol.records import OUT_OF_MEMORY, TrialRecord, TrialState
from study.protocol.state_bytes import state_bytes
from study.strategies import arm_label, trains_all

_GIB = 2**30


def peaks_gib(
    cells: Sequence[CellSummary], sizes: Sequence[int], pair: Pair
) -> tuple[tuple[str, float], ...]:
    """Each arm's largest peak per device in runs at these sizes."""
    found: dict[str, float] = {}
    for cell in cells:
        peak = cell.cost.peak_memory_bytes
        if cell.size in sizes and peak is not None:
            found[cell.arm] = max(found.get(cell.arm, 0.0), peak / _GIB)
    return tuple((arm, found[arm]) for arm in pair if arm in found)


def least_gib(
    config: StudyConfig, model_parameters: int | None, pair: Pair
) -> tuple[tuple[str, float], ...]:
    """What an arm that trains every weight holds on a device whatever the batch is, in GiB; empty
    where the model's size is not known, or the formula is not what DeepSpeed was told.

    What another holds depends on its groups, and is never more.
    """
    zero, training = config.zero, config.training
    if model_parameters is None or zero.overrides:
        return ()
    precisions = ("bf16", "fp32") if training.precision == "auto" else (training.precision,)
    states = [
        state_bytes(
            model_parameters,
            model_parameters,
            config.resources.workers_per_trial,
            zero.stage,
            precision,
            offload=zero.offload_optimizer == "cpu",
            moments=2 if training.optimizer == "adamw" else 1,
        )
        for precision in precisions
    ]
    on_host = zero.offload_parameters == "cpu"
    least = min(state.peak + (0 if on_host else state.weights) for state in states)
    return tuple((arm, least / _GIB) for arm in pair if trains_all(arm))


def ran_out(trials: Sequence[TrialRecord], pair: Pair) -> tuple[str, ...]:
    """The arms of which no trial completed, and one had not enough memory for a single example."""
    return tuple(
        arm
        for arm in pair
        if any(_ran_out(t) for t in trials if t.spec.arm == arm)
        and not any(t.state is TrialState.COMPLETE for t in trials if t.spec.arm == arm)
    )


def _ran_out(trial: TrialRecord) -> bool:
    return trial.outcome is not None and trial.outcome.reason.startswith(OUT_OF_MEMORY)


def only_arm(found: Verdict) -> str | None:
    """The one that fits where the other does not: the limit that was asked about or, without one,
    the study's own devices."""
    out = _left_out(found)
    if len(out) != 1:
        return None
    arm = found.pair.other(out[0])
    peak = dict(found.memory_gib).get(arm)
    limit = found.memory_limit_gib
    return arm if peak is not None and (limit is None or peak <= limit) else None


def _left_out(found: Verdict) -> tuple[str, ...]:
    """Arms that certainly do not fit."""
    limit = found.memory_limit_gib
    if limit is None:
        return found.memory_ran_out
    # A run's peak says more than the formula.
    needed = dict(found.memory_least_gib) | dict(found.memory_gib)
    return tuple(arm for arm in found.pair if needed.get(arm, 0.0) > limit)


def memory_gate(found: Verdict) -> tuple[Gate, ...]:
    """Empty where memory was no question: no limit was given, and no arm ran out of it."""
    limit, peaks = found.memory_limit_gib, dict(found.memory_gib)
    if limit is None and not found.memory_ran_out:
        return ()
    told = [f"{arm_label(arm)}: {gib:.2f} GiB" for arm, gib in found.memory_gib]
    told += [
        f"{arm_label(arm)}: at least {gib:.2f} GiB by formula"
        for arm, gib in found.memory_least_gib
        if arm not in peaks
    ]
    told += [f"{arm_label(arm)}: ran out of it in this study" for arm in found.memory_ran_out]
    out = _left_out(found)
    fine = not out and len(peaks) == 2
    return (
        Gate(
            "Memory",
            "pass" if fine else "fail" if len(out) == 2 else "warn",
            f"{'; '.join(told) or 'not measured'}, per device",
            "at most what the study's devices have" if limit is None else f"at most {limit:g} GiB",
            ""
            if fine
            else "A higher ZeRO stage, offloading or gradient checkpointing takes less memory.",
        ),
    )
