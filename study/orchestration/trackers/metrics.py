"""What a running study tells Prometheus, through Ray's metrics.

Every node's metrics port serves them, as Ray's own; Ray puts ``ray_`` before each name. Counters go
on from what is on record, so that they are totals over all sessions of a study.
"""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections.abc import Iterable, Mapping

from ray.util.metrics import Counter, Gauge, Metric

from study.orchestration.observer import Observer, PassingOn
from study.protocol.plan import StudyPlan
from study.protocol.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState
from study.protocol.results import spent_device_seconds_of

_TAGS = ("study", "arm", "size")
_HOUR = 3600.0
_REFRESH_SECONDS = 5.0
"""A gauge that is not set again is gone from Ray's metrics after twenty."""

ArmAtSize = tuple[str, int]
"""Arm and dataset size."""


class MeteredObserver(PassingOn):
    """Passes everything on to another observer, and keeps the metrics until it is closed. Ray must
    run already.

    Args:
        inner: the other one.
        plan: of the study.
        history: every trial that ever started, of all sessions.
    """

    def __init__(self, inner: Observer, plan: StudyPlan, history: Iterable[TrialRecord]) -> None:
        super().__init__(inner)
        self._study = plan.resolved.name
        self._gauges: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}
        self._left = threading.Event()
        self._trials = Gauge(
            "study_trials",
            "Trials of a cell by state; WAITING counts those that have yet to start.",
            (*_TAGS, "state"),
        )
        self._best = Gauge(
            "study_best_validation_loss", "Lowest of any finished trial, in nats.", _TAGS
        )
        self._hours = Counter(
            "study_device_hours", "GPUs' hours, or CPU workers' where there are no GPUs.", _TAGS
        )
        self._hits = Counter(
            "study_cache_hits", "Examples whose hidden states were read from the cache.", _TAGS
        )
        self._misses = Counter(
            "study_cache_misses", "Examples whose hidden states were computed.", _TAGS
        )
        self._written = Counter(
            "study_cache_written_bytes", "Hidden states written to nodes' disks.", _TAGS
        )
        config = plan.resolved
        self._planned = {
            (arm, size): config.search.replicates * (config.search.trials + config.confirm.seeds)
            for arm in config.arms.names
            for size in config.dataset_sizes
        }
        self._states: dict[ArmAtSize, dict[str, TrialState]] = {cell: {} for cell in self._planned}
        self._lowest: dict[ArmAtSize, float] = {}
        self._spent: dict[str, float] = {}
        for record in history:
            self._learn(record)
        for cell in self._planned:
            self._count(cell)
        self._thread = threading.Thread(target=self._refresh, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the metrics go, before Ray shuts down."""
        self._left.set()
        self._thread.join()

    # Observer

    def started(self, spec: TrialSpec) -> None:
        super().started(spec)
        self._set_state(spec, TrialState.RUNNING)

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        super().measured(spec, measurement)
        self._spend(TrialRecord(spec, TrialState.RUNNING, (measurement,)))

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        super().finished(spec, state, outcome)
        self._learn(TrialRecord(spec, state, outcome=outcome))
        self._set_state(spec, state)

    # Metrics

    def _learn(self, record: TrialRecord) -> None:
        """A trial that has ended, or that an earlier session left behind."""
        cell = _cell(record.spec)
        self._spend(record)
        if cell not in self._planned:  # of an arm or size that the study has no more
            return
        left = record.state is TrialState.RUNNING
        self._states[cell][record.spec.trial_id] = TrialState.PAUSED if left else record.state
        outcome = record.outcome
        if outcome is None:
            return
        if record.state is TrialState.COMPLETE and outcome.score is not None:
            self._lowest[cell] = min(outcome.score, self._lowest.get(cell, outcome.score))
            self._set(self._best, self._lowest[cell], self._tags(cell))
        use = outcome.prefix_cache
        if use is not None:
            self._add(self._hits, use.hits, cell)
            self._add(self._misses, use.misses, cell)
            self._add(self._written, use.bytes_written, cell)

    def _spend(self, record: TrialRecord) -> None:
        """What a trial has cost more than was known. One that goes on after a loss tells again
        what it had cost before."""
        spec, seconds = record.spec, spent_device_seconds_of(record)
        # A former winner's confirm trial has the same id and other hyperparameters.
        trial = f"{spec.trial_id} {sorted(spec.hyperparameters.items())}"
        known = self._spent.get(trial, 0.0)
        if seconds > known:
            self._spent[trial] = seconds
            self._add(self._hours, (seconds - known) / _HOUR, _cell(spec))

    def _set_state(self, spec: TrialSpec, state: TrialState) -> None:
        cell = _cell(spec)
        self._states[cell][spec.trial_id] = state
        self._count(cell)

    def _count(self, cell: ArmAtSize) -> None:
        counts = Counts(self._states[cell].values())
        counts[TrialState.WAITING] = max(0, self._planned[cell] - counts.total())
        for state in TrialState:
            self._set(self._trials, counts[state], self._tags(cell) | {"state": state.value})

    def _set(self, gauge: Gauge, value: float, tags: Mapping[str, str]) -> None:
        self._gauges[gauge, tuple(tags.items())] = value
        gauge.set(value, dict(tags))

    def _refresh(self) -> None:
        while not self._left.wait(_REFRESH_SECONDS):
            for (gauge, tags), value in list(self._gauges.items()):
                gauge.set(value, dict(tags))

    def _add(self, counter: Metric, value: float, cell: ArmAtSize) -> None:
        if value > 0:  # Ray refuses to add nothing
            counter.inc(value, self._tags(cell))

    def _tags(self, cell: ArmAtSize) -> dict[str, str]:
        arm, size = cell
        return {"study": self._study, "arm": arm, "size": str(size)}


def _cell(spec: TrialSpec) -> ArmAtSize:
    return spec.arm, spec.size
