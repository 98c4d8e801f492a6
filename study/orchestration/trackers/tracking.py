"""Trials in the trackers that people have open already, by Ray's own logger callbacks.

A tracker never fails a study and never holds it up: what goes wrong in one is told once, and after
a rest it is tried again.
"""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from study.analysis.table import numbers_of
from study.basics.interrupt import Told
from study.basics.paths import StudyPaths
from study.basics.urls import without_password
from study.orchestration.ledger.ledger import Ledger
from study.orchestration.trackers.trackers import TOOLS, ShownTrial, Tool
from study.protocol.records import Measurement, TrialOutcome

log = logging.getLogger(__name__)

REST_SECONDS = 300.0
"""After a failure: a server that is gone costs a wait for every call."""


class Tracking(Callback):
    """Tells one tracker of the trials that Tune runs.

    Args:
        tool: the tracker.
        show: a running trial by its id, as the tracker is to show it.
        tell: told once if the tracker fails.
        clock: seconds.
    """

    def __init__(
        self,
        tool: Tool,
        show: Callable[[str], ShownTrial],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tool, self._show, self._tell, self._clock = tool, show, tell, clock
        self._shown: dict[str, ShownTrial] = {}
        self._is_set_up = self._has_told = False
        self._rests_until = -math.inf

    def setup(self, *_: Any, **__: Any) -> None:
        self._try(lambda: None)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._try(lambda: self._shown_trial(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._try(lambda: self._result(trial, result))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end(trial, lost=True)

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        self._try(self._tool.close)

    def _result(self, trial: Trial, result: dict[str, Any]) -> None:
        shown = self._shown_trial(trial)
        if "measurement" in result:
            measurement = Measurement.from_dict(json.loads(result["measurement"]))
            shown.step = measurement.step
            numbers = numbers_of(measurement)
            self._tool.show(shown, {k: v for k, v in numbers.items() if k != "step"})
        elif "outcome" in result:
            outcome = TrialOutcome.from_dict(json.loads(result["outcome"]))
            shown.status = outcome.status
            self._tool.show(shown, scores(outcome))
        else:
            shown.status = "interrupted"

    def _end(self, trial: Trial, lost: bool = False) -> None:
        shown = self._shown.pop(trial.trial_id, None)
        if shown is None:
            return
        if lost:  # Tune's own word; the ledger hands the trial out again
            shown.status = "interrupted"
        self._try(lambda: self._tool.end(shown))

    def _shown_trial(self, trial: Trial) -> ShownTrial:
        """The trial, begun in the tracker if it was not."""
        if trial.trial_id not in self._shown:
            shown = self._show(trial.config["task_id"])
            self._tool.begin(shown)
            self._shown[trial.trial_id] = shown
        return self._shown[trial.trial_id]

    def _try(self, step: Callable[[], object]) -> None:
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
                self._tell(
                    f"{self._tool.label} does not take the trials ({lines[0].rstrip('.')}). The "
                    "study goes on without it, and tries again every few minutes"
                )

    def __getstate__(self) -> dict[str, Any]:
        # Tuner pickles its parts for Tuner.restore, which is not used.
        return {}

    def __deepcopy__(self, _: object) -> Tracking:
        return self


def track(ledger: Ledger, observer: Told) -> list[Tracking]:
    """A callback for Tune per tracker that the study file names; says where each shows."""
    config = ledger.plan.resolved
    if not config.tracking:
        return []
    mark = ledger.store.tracking_mark
    model = without_password(config.model.path)
    about = {"study": config.name, "model": model, "comparison": config.comparison}

    def show(trial_id: str) -> ShownTrial:
        return ShownTrial(ledger.running(trial_id), mark, about)

    paths = StudyPaths(config.results_dir)
    tools = [TOOLS[name](config.name, mark, paths) for name in config.tracking]
    for tool in tools:
        observer.message(f"Trials also go to {tool.label}: {tool.where}")
    return [Tracking(tool, show, observer.message) for tool in tools]


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
