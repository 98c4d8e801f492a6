"""Which trial is next, and what became of each: the study protocol, without Ray.

The searcher and the scheduler are thin adapters of this class to Ray Tune's interfaces.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol

from optuna.pruners import NopPruner

from study.orchestration.sampling import make_pruner, make_sampler
from study.plan import Cell, StudyPlan, cell_of
from study.records import Measurement, Stage, TrialOutcome, TrialRecord, TrialSpec, TrialState
from study.results import winner_of
from study.store import StudyStore

log = logging.getLogger(__name__)

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


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


class Ledger:
    """Hands out trials and books what comes back.

    Trials whose suggestion or pruning depends on earlier results run one after another inside
    their cell and replicate; designs drawn in the plan run in any order. So the outcome is the
    same at any concurrency.
    """

    def __init__(
        self, plan: StudyPlan, store: StudyStore, observer: Observer, concurrent_trials: int
    ) -> None:
        self.plan, self.store, self.observer = plan, store, observer
        self._limit = concurrent_trials
        self._running: dict[str, TrialSpec] = {}
        self._stopped: set[str] = set()
        self._pruner = make_pruner(plan)
        search = plan.config.search
        self._in_sequence = search.sampler != "sobol" or search.pruner != "none"
        self._confirm: list[TrialSpec] = []
        self._search: dict[Cell, dict[int, TrialRecord]] = {}
        for cell in plan.cells:
            self._search[cell] = _ended(store.records(cell, Stage.SEARCH))
            self._queue_confirm(cell)
        self._waiting = [s for s in plan.search if s.index not in self._search[cell_of(s)]]

    @property
    def is_done(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self._waiting or self._confirm or self._running)

    @property
    def has_nothing_to_start(self) -> bool:
        """No trial can become ready any more (running search trials may release confirm trials)."""
        if self._waiting or self._confirm:
            return False
        searching = any(s.stage is Stage.SEARCH for s in self._running.values())
        return not (searching and self.plan.config.confirm.seeds)

    def next(self) -> TrialSpec | None:
        """Start the next trial that may run now; None when there is none at the moment."""
        if len(self._running) >= self._limit:
            return None
        # Confirm trials first: whole replicates are worth more than more open ones.
        if self._confirm:
            return self._begin(self._confirm.pop(0))
        busy = {cell_of(s) for s in self._running.values()} if self._in_sequence else set()
        for position, spec in enumerate(self._waiting):
            if cell_of(spec) not in busy:
                return self._begin(self._waiting.pop(position))
        return None

    def _begin(self, spec: TrialSpec) -> TrialSpec:
        domains = self.plan.config.space().for_arm(spec.arm)
        resolved = self.store.begin(
            self.plan,
            spec,
            distributions={name: domain.distribution() for name, domain in domains.items()},
            sampler=make_sampler(self.plan, spec),
        )
        self._running[resolved.trial_id] = resolved
        self.observer.started(resolved)
        return resolved

    def job(self, trial_id: str, ray_train_job: str) -> None:
        """Name the Ray Train run that trains a trial."""
        self.store.set_job(trial_id, ray_train_job)

    def measured(self, trial_id: str, measurement: Measurement) -> bool:
        """Book an evaluation; False if the pruner stops the trial here."""
        spec = self._running[trial_id]
        self.store.report(spec, measurement)
        self.observer.measured(spec, measurement)
        last = measurement.step >= spec.steps
        if spec.stage is Stage.CONFIRM or last or isinstance(self._pruner, NopPruner):
            return True
        if self.store.should_prune(spec, self._pruner):
            self._stopped.add(trial_id)
            return False
        return True

    def ended(self, trial_id: str, outcome: TrialOutcome | None) -> None:
        """Book the end of a trial; None: its Ray actor died without a word."""
        spec = self._running.pop(trial_id, None)
        if spec is None:  # Tune tells a trial's end again when booking the first one failed
            return
        if outcome is None:
            outcome = self._outcome_without_worker(spec, trial_id)
        state = _state(outcome, pruned=trial_id in self._stopped)
        self.store.finish(spec, state, outcome)
        self.observer.finished(spec, state, outcome)
        if spec.stage is Stage.SEARCH:
            cell = cell_of(spec)
            record = self.store.record(spec)
            assert record is not None  # it was just told
            self._search[cell][spec.index] = record
            self._queue_confirm(cell)

    def _outcome_without_worker(self, spec: TrialSpec, trial_id: str) -> TrialOutcome:
        """For a trial whose workers were stopped or died: what its evaluations say."""
        record = self.store.record(spec)
        best = min(
            record.measurements if record else (), key=lambda m: m.validation_loss, default=None
        )
        pruned = trial_id in self._stopped
        last = record.measurements[-1] if record and record.measurements else None
        return TrialOutcome(
            status="pruned" if pruned else "error",
            reason=f"stopped by the {self.plan.config.search.pruner} pruner"
            if pruned
            else "The trial's process died without a report; see its log.",
            score=best.validation_loss if best else None,
            best_step=best.step if best else None,
            device_seconds=last.device_seconds if last else 0.0,
        )

    def _queue_confirm(self, cell: Cell) -> None:
        winner = winner_of(list(self._search[cell].values()), self.plan.config.search.trials)
        if winner is None or not self.plan.config.confirm.seeds:
            return
        done = _ended(self.store.records(cell, Stage.CONFIRM))
        specs = self.plan.confirm(cell, winner.spec.hyperparameters)
        self._confirm.extend(s for s in specs if s.index not in done)


def _ended(records: dict[int, TrialRecord]) -> dict[int, TrialRecord]:
    return {index: r for index, r in records.items() if r.state in _ENDED}


def _state(outcome: TrialOutcome, *, pruned: bool) -> TrialState:
    if pruned:
        return TrialState.PRUNED
    complete = outcome.status in ("finished", "stopped_early")
    finite = outcome.score is not None and math.isfinite(outcome.score)
    return TrialState.COMPLETE if complete and finite else TrialState.FAIL
