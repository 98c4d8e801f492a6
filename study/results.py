"""A study's results as one frozen value: what analysis, report and reuse read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.config import StudyConfig
from study.records import BaseModelRecord, DataSummary, TrialRecord, TrialState


@dataclass(frozen=True)
class StudyResults:
    """Everything a finished or running study has on record; reports need nothing else.

    Attributes:
        config: the validated study file.
        trials: every trial of the plan, waiting ones too, in plan order (confirm trials after
            the search trials). Confirm trials of a replicate appear once its winner is known.
        base: the untouched base model's losses, None before they are measured.
        data: what preparing the data found, None before it is prepared.
        cost_ratio: seconds per full step over seconds per LIFT step, from the probe; None when
            the basis needs none or it has not run.
        model_parameters: number of scalars in the model, None before it was loaded.
        seconds: wall seconds spent running so far, over all sessions of the study.
        notes: plan warnings, one sentence each.
    """

    config: StudyConfig
    trials: tuple[TrialRecord, ...]
    base: BaseModelRecord | None = None
    data: DataSummary | None = None
    cost_ratio: float | None = None
    model_parameters: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def winner_of(search: Sequence[TrialRecord], trials: int) -> TrialRecord | None:
    """A replicate's winner: lowest validation loss among its COMPLETE search trials.

    None while any of its `trials` has not ended, or when none completed.
    """
    ended = [r for r in search if r.state not in (TrialState.WAITING, TrialState.RUNNING)]
    complete = [r for r in ended if r.state is TrialState.COMPLETE and r.score is not None]
    if len(ended) < trials or not complete:
        return None
    return min(complete, key=lambda r: (r.score or 0.0, r.spec.index))
