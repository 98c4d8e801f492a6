"""Which trial is next, and what became of each: the study protocol, without Ray.

The searcher and the scheduler are thin adapters of this class to Ray Tune's interfaces.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from optuna.pruners import NopPruner

from study.basics.errors import StoreError
from study.basics.owned import remove_checkpoint
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.basics.text_format import counted
from study.orchestration.ledger.budget import Budget
from study.orchestration.ledger.sampling import begin_trial, is_pruned, make_pruner
from study.orchestration.observer import Observer
from study.protocol.plan import Cell, StudyPlan, cell_of
from study.protocol.records import (
    Measurement,
    OutcomeStatus,
    Stage,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from study.protocol.results import winner_of
from study.protocol.steps import prefix_cache_pays
from study.store.study_store import StudyStore

log = logging.getLogger(__name__)

MAX_LOSSES = 2
"""Times a trial is handed out again after its process died without a word."""
_POLL_SECONDS = 2.0


class Ledger:
    """Hands out trials and books what comes back.

    Trials whose suggestion or pruning depends on earlier results run one after another inside
    their cell and replicate; designs drawn in the plan run in any order. So the outcome is the
    same at any concurrency.

    Args:
        concurrent_trials: how many may run at the same time.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: StudyStore,
        observer: Observer,
        concurrent_trials: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plan, self.store, self.observer = plan, store, observer
        self._running: dict[str, TrialSpec] = {}
        self._stopped: set[str] = set()
        self._paused = False
        self._losses: Counter[str] = Counter()
        self._jobs: dict[str, str] = {}
        # The last evaluation on record of each running trial, and whether it goes on from there.
        self._measured: dict[str, tuple[int, bool | None]] = {}
        self._by_hand: set[str] = set()
        self._stop_requests: frozenset[str] = frozenset()
        self._clock, self._polled, self._told_limit = clock, -math.inf, False
        self._budget = Budget(
            plan, store.all_records(), concurrent_trials, lambda: store.wall_seconds(clock())
        )
        self.limit = concurrent_trials
        self.prefix_cache_pays = prefix_cache_pays(plan.resolved, plan.model)
        self._pruner = make_pruner(plan)
        search = plan.resolved.search
        self._in_sequence = search.sampler != "sobol" or search.pruner != "none"
        self._confirm: list[TrialSpec] = []
        self._search: dict[Cell, dict[int, TrialRecord]] = {}
        for cell in plan.cells:
            self._search[cell] = _ended(store.records(cell, Stage.SEARCH))
            self._queue_confirm(cell)
        self._waiting = [s for s in plan.search if s.index not in self._search[cell_of(s)]]

    @property
    def limit(self) -> int:
        """How many trials may run at the same time; those that run already go on."""
        return self._limit

    @limit.setter
    def limit(self, concurrent_trials: int) -> None:
        self._limit = self._budget.slots = concurrent_trials

    @property
    def backlog(self) -> int:
        """Trials that run, or could if there were room for them."""
        queue = self._confirm or self._waiting
        running = self._running.values()
        if self._paused or (queue and self._budget.refusal(queue[0], running, self._owed())):
            return len(self._running)
        waiting = len(self._waiting)
        if self._in_sequence:
            busy = {cell_of(s) for s in self._running.values()}
            waiting = len({cell_of(s) for s in self._waiting} - busy)
        return len(self._running) + len(self._confirm) + waiting

    @property
    def is_done(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self._waiting or self._confirm or self._running)

    @property
    def is_paused(self) -> bool:
        """Trials were interrupted: the study goes on another time."""
        return self._paused

    @property
    def has_nothing_to_start(self) -> bool:
        """No trial can become ready any more (one that runs may be lost and start again, release
        confirm trials, and leave more of the budget than was predicted)."""
        if self._paused or self._running:
            return self._paused
        waiting = self._confirm or self._waiting
        return not waiting or not self._affords(waiting[0])

    def next(self) -> TrialSpec | None:
        """Start the next trial that may run now; None when there is none at the moment.

        A trial that was to be skipped is booked as failed here, when its turn comes.
        """
        while (queue := self._ready()) is not None:
            trials, position = queue
            spec = self._begin(trials.pop(position))
            if not self.stop_requested(spec.trial_id):
                return spec
            self._by_hand.add(spec.trial_id)
            self.ended(spec.trial_id, None)
        return None

    def _ready(self) -> tuple[list[TrialSpec], int] | None:
        """Where the next trial stands. The budget skips none: whole replicates are worth more
        than many open ones."""
        if self._paused or len(self._running) >= self._limit:
            return None
        # Confirm trials first, for the same reason.
        if self._confirm:
            return (self._confirm, 0) if self._affords(self._confirm[0]) else None
        busy = {cell_of(s) for s in self._running.values()} if self._in_sequence else set()
        for position, spec in enumerate(self._waiting):
            if cell_of(spec) not in busy:
                return (self._waiting, position) if self._affords(spec) else None
        return None

    def _affords(self, spec: TrialSpec) -> bool:
        """Whether the budget has room for a trial. If it never will, somebody is told, once."""
        if not self._budget.is_limited:
            return True
        refusal = self._budget.refusal(spec, self._running.values(), self._owed())
        if refusal and not self._running and not self._told_limit:
            self._told_limit = True
            searching = {cell_of(s) for s in self._waiting}
            waiting = len(self._waiting) + len(self._confirm)
            waiting += len(searching) * self.plan.resolved.confirm.seeds
            self.observer.message(
                f"Ending here with {counted(waiting, 'trial')} waiting: {refusal}"
            )
        return refusal is None

    def _owed(self) -> Counter[Cell]:
        """Confirm trials that have yet to start, of every replicate that has begun."""
        owed = Counter(cell_of(s) for s in self._confirm)
        config = self.plan.resolved
        running = {cell_of(s) for s in self._running.values() if s.stage is Stage.SEARCH}
        for cell, ended in self._search.items():
            if cell in running or 0 < len(ended) < config.search.trials:
                owed[cell] = config.confirm.seeds
        return owed

    def stop_requested(self, trial_id: str) -> bool:
        """Whether somebody asked for this trial's end; the store is read every two seconds."""
        if self._clock() - self._polled >= _POLL_SECONDS:
            self._stop_requests, self._polled = self.store.stop_requests(), self._clock()
        return trial_id in self._stop_requests

    def _begin(self, spec: TrialSpec) -> TrialSpec:
        resolved = begin_trial(self.plan, self.store, spec)
        self._running[resolved.trial_id] = resolved
        known = self.store.record(resolved)
        measured = known.measurements if known else ()
        self._measured[resolved.trial_id] = (measured[-1].step if measured else 0, None)
        self._budget.started(resolved)
        self.observer.started(resolved)
        return resolved

    def running(self, trial_id: str) -> TrialSpec:
        """A trial that runs, as it was begun."""
        return self._running[trial_id]

    def job(self, trial_id: str, ray_train_job: str) -> None:
        """Name the Ray Train run that trains a trial."""
        if trial_id in self._running and ray_train_job != self._jobs.get(trial_id, ""):
            self._jobs[trial_id] = ray_train_job
            self.store.set_job(trial_id, ray_train_job)

    def wants_verdicts(self, spec: TrialSpec) -> bool:
        """Whether `measured` may stop this trial."""
        return spec.stage is Stage.SEARCH and not isinstance(self._pruner, NopPruner)

    def measured(self, trial_id: str, measurement: Measurement) -> bool:
        """Book an evaluation; False if the pruner or a user stops the trial here.

        A trial that goes on after a loss reports its evaluations again: those on record stay as
        they are. Only the last of them may still lack the pruner's word.
        """
        spec, (step, goes_on) = self._running[trial_id], self._measured[trial_id]
        if measurement.step > step:
            self.store.report(spec, measurement)
            goes_on = None
        self._budget.measured(spec, measurement)
        self.observer.measured(spec, measurement)
        if self.stop_requested(trial_id):
            self._by_hand.add(trial_id)
            return False
        if measurement.step < step:
            return True
        if goes_on is not None:
            return goes_on
        asked = self.wants_verdicts(spec) and measurement.step < spec.steps
        goes_on = not (asked and is_pruned(self.store, spec, self._pruner))
        self._measured[trial_id] = (measurement.step, goes_on)
        if not goes_on:
            self._stopped.add(trial_id)
        return goes_on

    def interrupted(self, trial_id: str) -> None:
        """A trial was paused, and with it the study; on record it still runs."""
        self._running.pop(trial_id, None)
        self.pause()

    def pause(self) -> None:
        """Start no more trials; the study goes on another time."""
        self._paused = True

    def lost(self, trial_id: str) -> bool:
        """A trial's process died without a word: hand the trial out again.

        Returns:
            Whether it has been lost too often for that, and was booked as failed.
        """
        self._losses[trial_id] += 1
        if self._losses[trial_id] > MAX_LOSSES:
            self.ended(trial_id, None)
            return True
        spec = self._running[trial_id]
        queue = self._confirm if spec.stage is Stage.CONFIRM else self._waiting
        queue.insert(0, spec)
        del self._running[trial_id]
        return False

    def ended(self, trial_id: str, outcome: TrialOutcome | None) -> None:
        """Book the end of a trial; None: nobody told its outcome."""
        spec = self._running[trial_id]
        if outcome is None:
            outcome = self._outcome_without_worker(spec, trial_id)
        if trial_id in self._by_hand:
            how = "skipped" if outcome.score is None else "stopped"
            outcome = dataclasses.replace(
                outcome, status=OutcomeStatus.STOPPED, reason=f"{how} by hand"
            )
        state = _state(outcome, pruned=trial_id in self._stopped)
        self.store.finish(spec, state, outcome)
        record = self.store.record(spec)
        assert record is not None  # it was just told
        self._budget.ended(record)
        if spec.stage is Stage.SEARCH:
            cell = cell_of(spec)
            self._search[cell][spec.index] = record
            self._queue_confirm(cell)
        del self._running[trial_id]
        self._drop_checkpoint(trial_id)
        self.observer.finished(spec, state, outcome)
        self.store.keep_wall_seconds(self._clock())
        # Read anew: a request that came too late must not hit a later trial of the same name.
        if trial_id in self.store.stop_requests():
            self.store.withdraw_stop(trial_id)
        self._stop_requests -= {trial_id}

    def _drop_checkpoint(self, trial_id: str) -> None:
        config = self.plan.resolved
        paths = StudyPaths(config.results_dir)
        folder = paths.checkpoint(trial_id)
        if config.results_url is None:
            remove_checkpoint(folder)
        else:
            with suppress(StoreError):  # it wastes room, no more
                name = folder.relative_to(paths.root).as_posix()
                RemoteFolder(config.results_url).remove(name)

    def _outcome_without_worker(self, spec: TrialSpec, trial_id: str) -> TrialOutcome:
        """For a trial whose workers were stopped or died: what its evaluations say."""
        record = self.store.record(spec)
        best = min(
            record.measurements if record else (), key=lambda m: m.validation_loss, default=None
        )
        pruned = trial_id in self._stopped
        last = record.measurements[-1] if record and record.measurements else None
        return TrialOutcome(
            status=OutcomeStatus.PRUNED if pruned else OutcomeStatus.ERROR,
            reason=f"stopped by the {self.plan.resolved.search.pruner} pruner"
            if pruned
            else "The trial's process died without a report; see its log.",
            score=best.validation_loss if best else None,
            best_step=best.step if best else None,
            device_seconds=last.device_seconds if last else 0.0,
        )

    def _queue_confirm(self, cell: Cell) -> None:
        winner = winner_of(list(self._search[cell].values()), self.plan.resolved.search.trials)
        if winner is None or not self.plan.resolved.confirm.seeds:
            return
        chosen = winner.spec.hyperparameters
        done = _ended(self.store.records(cell, Stage.CONFIRM, chosen))
        specs = self.plan.confirm(cell, chosen)
        self._confirm.extend(s for s in specs if s.index not in done)


def _ended(records: dict[int, TrialRecord]) -> dict[int, TrialRecord]:
    return {index: r for index, r in records.items() if r.state.has_ended}


def _state(outcome: TrialOutcome, *, pruned: bool) -> TrialState:
    if pruned:
        return TrialState.PRUNED
    complete = outcome.status.is_complete
    finite = outcome.score is not None and math.isfinite(outcome.score)
    return TrialState.COMPLETE if complete and finite else TrialState.FAIL
