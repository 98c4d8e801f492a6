"""What trials cost: device-seconds, cold and as spent, updates, tokens, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from study.analysis.cells.base import mean
from study.analysis.cells.cost_records import CellCost
from study.protocol.records import OutcomeStatus, PhaseSummary, TrialRecord, TrialState
from study.protocol.results import device_seconds_of, spent_device_seconds_of
from study.strategies import trains_all


def cold_device_seconds_of(trial: TrialRecord) -> float:
    """`device_seconds_of` the same trial had the prefix cache been empty at its start."""
    use = trial.outcome.prefix_cache if trial.outcome is not None else None
    return device_seconds_of(trial) + (0.0 if use is None else use.cold_seconds)


def peak_memory_of(trial: TrialRecord) -> int | None:
    """Largest peak in bytes over ranks, evaluations and phases; None if nothing was measured."""
    peaks = [m.peak_memory_bytes for m in trial.measurements]
    peaks += [p.peak_memory_bytes for p in _phases(trial)]
    return max(peaks, default=None)


def steps_done(trial: TrialRecord) -> int:
    """Optimizer steps up to the last evaluation on record."""
    return trial.measurements[-1].step if trial.measurements else 0


def updates_per_parameter(trial: TrialRecord, model_parameters: int | None) -> float | None:
    """Optimizer steps that the average scalar of the model got: all steps where every parameter
    trains in each, a G-th of them with G equal groups in turn.

    Args:
        model_parameters: scalars in the model.

    Returns:
        None where it cannot be known: no phases on record, or a trial that trains parts of a
        model of unknown size.
    """
    phases = _phases(trial)
    if not phases:
        return None
    if trains_all(trial.spec.arm):
        return float(sum(p.steps for p in phases))
    if not model_parameters:
        return None
    return sum(p.steps * p.trainable_parameters for p in phases) / model_parameters


def cell_cost(trials: Sequence[TrialRecord], model_parameters: int | None = None) -> CellCost:
    """Cost of one arm at one size over all its trials.

    Args:
        model_parameters: scalars in the model, None if unknown.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    whole = [
        t for t in complete if t.outcome is None or t.outcome.status != OutcomeStatus.STOPPED_EARLY
    ]
    peaks = [p for t in complete if (p := peak_memory_of(t)) is not None]
    updates = [u for t in whole if (u := updates_per_parameter(t, model_parameters)) is not None]
    return CellCost(
        device_seconds=sum(map(spent_device_seconds_of, trials)),
        run_cold_device_seconds=mean([cold_device_seconds_of(t) for t in whole]),
        run_device_seconds=mean([device_seconds_of(t) for t in whole]),
        run_count=len(whole),
        run_steps=mean([t.spec.steps for t in whole]),
        run_updates_per_parameter=mean(updates),
        run_tokens=mean([t.measurements[-1].tokens for t in whole if t.measurements]),
        peak_memory_bytes=max(peaks, default=None),
        state_bytes=_largest(complete, lambda phase: phase.state_bytes),
        peak_state_bytes=_largest(complete, lambda phase: phase.peak_state_bytes),
    )


def _phases(trial: TrialRecord) -> tuple[PhaseSummary, ...]:
    return trial.outcome.phases if trial.outcome is not None else ()


def _largest(trials: Sequence[TrialRecord], bytes_of: Callable[[PhaseSummary], int]) -> int | None:
    # 0 stands in records from before it was kept.
    return max((bytes_of(p) for t in trials for p in _phases(t)), default=0) or None
