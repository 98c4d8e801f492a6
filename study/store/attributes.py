"""How a trial's facts lie in the user attributes of an Optuna trial, and reading them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.protocol.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SPEC = "spec"
OUTCOME = "outcome"
JOB = "ray_train_job"
STARTED = "started"
FINISHED = "finished"
MEASUREMENT = "measurement/"
"""Followed by the step."""
VOID = "void"
"""On a trial that a killed driver left and that stands for nothing in the plan."""


def to_record(frozen: FrozenTrial) -> TrialRecord:
    """The record of a trial that has a spec.

    Raises:
        KeyError: it has none.
    """
    attrs = frozen.user_attrs
    measurements = [Measurement.from_dict(v) for k, v in attrs.items() if k.startswith(MEASUREMENT)]
    return TrialRecord(
        spec=TrialSpec.from_dict(attrs[SPEC]),
        state=TrialState(frozen.state.name),
        measurements=tuple(sorted(measurements, key=lambda m: m.step)),
        outcome=TrialOutcome.from_dict(attrs[OUTCOME]) if OUTCOME in attrs else None,
        ray_train_job=attrs.get(JOB),
        started=attrs.get(STARTED),
        finished=attrs.get(FINISHED),
    )
