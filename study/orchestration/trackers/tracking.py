"""Trials in the trackers that people have open already.

A tracker never fails a study and never holds it up: it is told from a thread of its own, what goes
wrong is told once, and after a rest it is tried again. No Ray in here.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

from study.analysis.table import numbers_of
from study.basics.paths import StudyPaths
from study.basics.urls import without_password
from study.config.load import StudyConfig
from study.orchestration.observer import Observer, PassingOn
from study.orchestration.trackers.trackers import TOOLS, ShownTrial, Tool
from study.protocol.records import Measurement, OutcomeStatus, TrialOutcome, TrialSpec, TrialState

log = logging.getLogger(__name__)

REST_SECONDS = 300.0
"""After a failure: a server that is gone costs a wait for every call."""

Step = Callable[[], object]


class Tracking(PassingOn):
    """Passes everything on to another observer, and tells one tracker of the trials until it is
    closed.

    Args:
        inner: the other one; told once if the tracker fails.
        tool: the tracker.
        shown: a trial as the tracker is to show it.
        later: carries out one step after the other; None: in a thread of its own.
        clock: seconds.
    """

    def __init__(
        self,
        inner: Observer,
        tool: Tool,
        shown: Callable[[TrialSpec], ShownTrial],
        later: Callable[[Step], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._tool, self._as_shown, self._clock = tool, shown, clock
        self._thread = ThreadPoolExecutor(1, "tracker")
        self._later = later or self._thread.submit
        self._shown: dict[str, ShownTrial] = {}
        self._is_set_up = self._has_told = False
        self._rests_until = -math.inf

    # Observer

    def started(self, spec: TrialSpec) -> None:
        super().started(spec)
        self._try(lambda: self._begun(spec))

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        super().measured(spec, measurement)
        self._try(lambda: self._measured(spec, measurement))

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        super().finished(spec, state, outcome)
        self._try(lambda: self._finished(spec, outcome))

    def close(self) -> None:
        """No more trials come; those that have not ended go on in another session."""
        self._later(self._interrupted)
        self._thread.shutdown()

    # The tracker's thread

    def _begun(self, spec: TrialSpec) -> ShownTrial:
        """The trial, begun in the tracker if it was not."""
        if spec.trial_id not in self._shown:
            shown = self._as_shown(spec)
            self._tool.begin(shown)
            self._shown[spec.trial_id] = shown
        return self._shown[spec.trial_id]

    def _measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        shown = self._begun(spec)
        if measurement.step <= shown.step:  # told again, by a trial that was lost
            return
        shown.step = measurement.step
        numbers = numbers_of(measurement)
        self._tool.show(shown, {k: v for k, v in numbers.items() if k != "step"})

    def _finished(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        shown = self._begun(spec)
        shown.status = outcome.status
        del self._shown[spec.trial_id]
        self._tool.show(shown, scores(outcome))
        self._tool.end(shown)

    def _interrupted(self) -> None:
        for shown in self._shown.values():
            shown.status = OutcomeStatus.INTERRUPTED
            self._carry_out(partial(self._tool.end, shown))

    def _try(self, step: Step) -> None:
        self._later(lambda: self._carry_out(step))

    def _carry_out(self, step: Step) -> None:
        if self._clock() < self._rests_until:
            return
        try:
            if not self._is_set_up:
                self._tool.set_up()
                self._is_set_up = True
            step()
        except Exception as error:  # each tracker raises its own
            self._rests_until = self._clock() + REST_SECONDS
            log.warning("%s: %s", self._tool.label, without_password(traceback.format_exc()))
            if not self._has_told:
                self._has_told = True
                told = without_password(str(error)).strip()
                lines = told.splitlines() or [type(error).__name__]
                self.message(
                    f"{self._tool.label} does not take the trials ({lines[0].rstrip('.')}). The "
                    "study goes on without it, and tries again every few minutes"
                )


@contextmanager
def tracked(observer: Observer, config: StudyConfig, mark: str) -> Iterator[Observer]:
    """An observer that also tells the trackers of a study file; says where each shows.

    Args:
        mark: see `ShownTrial`.
    """
    about = {
        "study": config.name,
        "model": without_password(config.model.path),
        "comparison": config.comparison,
    }
    paths = StudyPaths(config.results_dir)
    with ExitStack() as stack:
        for name in config.tracking:
            tool = TOOLS[name](config.name, mark, paths)
            observer.message(f"Trials also go to {tool.label}: {tool.where}")
            tracking = Tracking(observer, tool, lambda spec: ShownTrial(spec, mark, about))
            observer = stack.enter_context(closing(tracking))
        yield observer


def scores(outcome: TrialOutcome) -> dict[str, Any]:
    """What a trial's end adds to its evaluations, as flat numbers."""
    return {
        "best_validation_loss": outcome.score,
        "best_step": outcome.best_step,
        "test_loss": outcome.test_loss,
        **{f"test_{name}": value for name, value in outcome.test_metrics.items()},
        "retention_loss": outcome.retention_loss,
        "total_device_seconds": outcome.device_seconds,
        "train_seconds": outcome.train_seconds,
    }
