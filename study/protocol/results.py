"""A study's results as one frozen value: what analysis, report and reuse read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from study.basics.urls import without_passwords
from study.config.load import StudyConfig
from study.protocol.records import (
    BaseModelRecord,
    DataSummary,
    StepCosts,
    TrialRecord,
    TrialState,
    WarmStart,
)

_RECORDS: dict[str, Any] = {
    "base": BaseModelRecord,
    "data": DataSummary,
    "probe": StepCosts,
    "warm_start": WarmStart,
}
_VALUES = (
    "model_parameters", "notes", "model_fingerprint", "train_fingerprint", "num_blocks", "tied",
)  # fmt: skip
"""What is known of a study beside its trials."""


@dataclass(frozen=True)
class StudyResults:
    """Everything a finished or running study has on record; reports need nothing else.

    Attributes:
        config: the validated study file.
        trials: every trial of the plan, waiting ones too, in plan order (confirm trials after
            the search trials). Confirm trials of a replicate appear once its winner is known.
        base: the untouched base model's losses, None before they are measured.
        data: what preparing the data found, None before it is prepared.
        probe: what steps cost in each arm; None when the basis needs no probe or it has not run.
        model_parameters: number of scalars in the model, None before it was loaded.
        seconds: wall seconds spent running so far, over all sessions of the study.
        device_seconds: spent by its trials so far, over all sessions: failed ones too, and those
            that do not count any more because a longer search has another winner.
        notes: plan warnings, one sentence each.
        warm_start: what the searches try first; None without earlier studies.
        model_fingerprint, train_fingerprint: of the model and of the training data by content, see
            `study.basics.fingerprints`; None in records from before they were kept.
        num_blocks: transformer blocks of the model, None before it was looked at.
        tied: its head is the input embedding.
    """

    config: StudyConfig
    trials: tuple[TrialRecord, ...]
    base: BaseModelRecord | None = None
    data: DataSummary | None = None
    probe: StepCosts | None = None
    model_parameters: int | None = None
    seconds: float = 0.0
    device_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    warm_start: WarmStart | None = None
    model_fingerprint: str | None = None
    train_fingerprint: str | None = None
    num_blocks: int | None = None
    tied: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back, but for passwords of URLs."""

        facts = {name: _plain(getattr(self, name)) for name in (*_RECORDS, *_VALUES)}
        return {
            "config": published_config(self.config),
            "trials": [trial.to_dict() for trial in self.trials],
            "seconds": self.seconds,
            "device_seconds": self.device_seconds,
            **facts,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else, or of another version.
        """
        return cls(
            config=StudyConfig.from_dict(data["config"]),
            trials=tuple(map(TrialRecord.from_dict, data["trials"])),
            seconds=data["seconds"],
            device_seconds=data["device_seconds"],
            **study_facts(data),
        )

    @property
    def place(self) -> str | None:
        """The results folder that was read, or its URL; None where only a database is known."""
        return self.config.storage.results

    @property
    def cost_ratio(self) -> float | None:
        """See `StepCosts.cost_ratio`; None without a probe."""
        return None if self.probe is None else self.probe.cost_ratio


def study_facts(known: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a study beside its trials: plain values, as a store or a file has them, as
    the fields of `StudyResults` that they are. What an older record lacks has its default."""
    values = {name: known[name] for name in _VALUES if known.get(name) is not None}
    if "notes" in values:
        values["notes"] = tuple(values["notes"])
    return values | {name: fact(known, name) for name in _RECORDS}


def fact(known: Mapping[str, Any], name: str) -> Any:
    """One of the records among them, None where it is not known yet."""
    return _RECORDS[name].from_dict(known[name]) if known.get(name) else None


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.to_dict() if hasattr(value, "to_dict") else value


def winner_of(search: Sequence[TrialRecord], trials: int) -> TrialRecord | None:
    """A replicate's winner: lowest validation loss among its COMPLETE search trials.

    None while any of its `trials` has not ended, or when none completed.
    """
    ended = [r for r in search if r.state.has_ended]
    complete = [r for r in ended if r.state is TrialState.COMPLETE and r.score is not None]
    if len(ended) < trials or not complete:
        return None
    return min(complete, key=lambda r: (r.score or 0.0, r.spec.index))


def with_paused(
    trials: Sequence[TrialRecord], running_since: float = math.inf
) -> tuple[TrialRecord, ...]:
    """The same trials, with those PAUSED that began before the driver did which runs now.

    Args:
        running_since: when that was, seconds since the epoch; infinite: there is none.
    """
    return tuple(
        dataclasses.replace(trial, state=TrialState.PAUSED)
        if trial.state is TrialState.RUNNING and (trial.started or 0.0) < running_since
        else trial
        for trial in trials
    )


def device_seconds_of(trial: TrialRecord) -> float:
    """What a trial has cost so far, checkpoints apart: the whole of it once it ended, else up to
    its last evaluation."""
    if trial.outcome is not None and trial.outcome.device_seconds > 0:
        return trial.outcome.device_seconds
    return trial.measurements[-1].device_seconds if trial.measurements else 0.0


def spent_device_seconds_of(trial: TrialRecord) -> float:
    """`device_seconds_of` with what writing checkpoints took."""
    outcome = trial.outcome
    return device_seconds_of(trial) + (outcome.checkpoint_device_seconds if outcome else 0.0)


def published_config(config: StudyConfig) -> dict[str, Any]:
    """A study file as plain values that anybody may read: without the passwords of its URLs."""
    found: dict[str, Any] = without_passwords(config.to_dict())
    return found
