"""Who follows a running study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from study.protocol.plan import StudyPlan
from study.protocol.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState


class Observer(Protocol):
    """Follows a running study; called from the driver's thread only, but for `message`."""

    def planned(self, plan: StudyPlan, records: Sequence[TrialRecord]) -> None:
        """The plan is known; `records` are the trials already on record."""

    def message(self, text: str) -> None:
        """Something a person waiting may want to know; from any thread."""

    def started(self, spec: TrialSpec) -> None:
        """A trial was handed to Ray."""

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        """A running trial was evaluated."""

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        """A trial ended."""


class QuietObserver(Observer):
    """Follows nothing."""

    def planned(self, plan: StudyPlan, records: Sequence[TrialRecord]) -> None: ...
    def message(self, text: str) -> None: ...
    def started(self, spec: TrialSpec) -> None: ...
    def measured(self, spec: TrialSpec, measurement: Measurement) -> None: ...
    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None: ...


class PassingOn:
    """An observer that passes everything on to another one; others add what they do besides."""

    def __init__(self, inner: Observer) -> None:
        self._inner = inner

    def planned(self, plan: StudyPlan, records: Sequence[TrialRecord]) -> None:
        self._inner.planned(plan, records)

    def message(self, text: str) -> None:
        self._inner.message(text)

    def started(self, spec: TrialSpec) -> None:
        self._inner.started(spec)

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        self._inner.measured(spec, measurement)

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        self._inner.finished(spec, state, outcome)


class Publishing(PassingOn):
    """Publishes the results now and then, while trials run and end."""

    def __init__(self, inner: Observer, publish: Callable[[], None]) -> None:
        super().__init__(inner)
        self._publish = publish

    def started(self, spec: TrialSpec) -> None:
        super().started(spec)
        self._publish()

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        super().measured(spec, measurement)
        self._publish()

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        super().finished(spec, state, outcome)
        self._publish()
