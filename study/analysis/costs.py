"""What trials cost: device-seconds, tokens, memory."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.base import CellCost, mean
from study.records import TrialRecord, TrialState


def device_seconds_of(trial: TrialRecord) -> float:
    """Device-seconds spent so far: of the whole trial once it ended, else up to its last
    evaluation."""
    if trial.outcome is not None and trial.outcome.device_seconds > 0:
        return trial.outcome.device_seconds
    return trial.measurements[-1].device_seconds if trial.measurements else 0.0


def peak_memory_of(trial: TrialRecord) -> int | None:
    """Largest peak in bytes over ranks, evaluations and phases; None if nothing was measured."""
    peaks = [m.peak_memory_bytes for m in trial.measurements]
    if trial.outcome is not None:
        peaks += [p.peak_memory_bytes for p in trial.outcome.phases]
    return max(peaks, default=None)


def steps_done(trial: TrialRecord) -> int:
    """Optimizer steps up to the last evaluation on record."""
    return trial.measurements[-1].step if trial.measurements else 0


def cell_cost(trials: Sequence[TrialRecord]) -> CellCost:
    """Cost of one arm at one size over all its trials."""
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    whole = [t for t in complete if t.outcome is None or t.outcome.status != "stopped_early"]
    peaks = [p for t in complete if (p := peak_memory_of(t)) is not None]
    return CellCost(
        device_seconds=sum(map(device_seconds_of, trials)),
        run_device_seconds=mean([device_seconds_of(t) for t in whole]),
        run_count=len(whole),
        run_steps=mean([t.spec.steps for t in whole]),
        run_tokens=mean([t.measurements[-1].tokens for t in whole if t.measurements]),
        peak_memory_bytes=max(peaks, default=None),
    )
