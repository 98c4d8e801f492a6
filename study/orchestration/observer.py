"""Who follows a running study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from study.plan import StudyPlan
from study.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState


class Observer(Protocol):
    """Follows a running study; every method may be called from the driver's thread only."""

    def planned(self, plan: StudyPlan, records: Sequence[TrialRecord]) -> None:
        """The plan is known; `records` are the trials already on record."""

    def message(self, text: str) -> None:
        """Something a person waiting may want to know."""

    def started(self, spec: TrialSpec) -> None:
        """A trial was handed to Ray."""

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        """A running trial was evaluated."""

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        """A trial ended."""
