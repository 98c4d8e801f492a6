"""How long a study will take, and how many device-hours: from what steps cost, and the plan.

What a trial costs follows from the probe's seconds, or from trials that have ended; ended trials
also correct the probe. Trials are then laid out as `study.orchestration.ledger` hands them out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from study.orchestration.groups.switchboard import STARTUP_SHARE
from study.orchestration.preflight.spread import spread
from study.protocol.cost_model import RunShape, Tariff
from study.protocol.plan import Cell, StudyPlan, cell_of
from study.protocol.records import DataSummary, Stage, TrialRecord, TrialSpec, TrialState
from study.protocol.steps import arm_tariff, trial_seconds

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Cluster:
    """What the study runs on.

    Attributes:
        trials_at_once: concurrent trials.
        devices_per_trial: workers, or the GPUs they take.
        workers_per_trial: workers.
        startup_seconds: from handing a trial out to its first phase, alone; None: not known.
        slowdown: how much longer a trial takes beside the others than alone, at least 1 (workers
            that share cores).
    """

    trials_at_once: int
    devices_per_trial: float
    workers_per_trial: int
    startup_seconds: float | None = None
    slowdown: float = 1.0


@dataclass(frozen=True)
class Forecast:
    """What is left to run.

    Attributes:
        trials, of: still to run, and in the whole plan.
        seconds: wall time.
        factor: by which it, and the device time, may be longer or shorter, see `spread`.
        device_seconds: per arm, start-up included.
        startup_known: False where start-up could not be counted.
    """

    trials: int
    of: int
    seconds: float
    device_seconds: dict[str, float] = field(default_factory=dict)
    startup_known: bool = True
    factor: float = 1.0

    @property
    def range(self) -> tuple[float, float]:
        """Wall seconds, see `factor`."""
        return self.seconds / self.factor, self.seconds * self.factor


def forecast(
    plan: StudyPlan, data: DataSummary, records: Sequence[TrialRecord], cluster: Cluster
) -> Forecast | None:
    """Predict the rest of a study; None where an arm has neither a probe nor an ended trial.

    Args:
        plan: with the probe, where there is one.
        records: of the trials on record.
    """
    ended = {r.spec.trial_id for r in records if r.state in _ENDED}
    specs = [s for s in all_specs(plan) if s.trial_id not in ended]
    whole = [r for r in records if _is_whole(r)]
    startup = _measured_startup(whole, cluster.workers_per_trial)
    once = 0.0
    if startup is None and cluster.startup_seconds is not None:
        startup = once = cluster.startup_seconds * cluster.slowdown
    seconds: dict[str, float] = {}
    first = 0.0
    for arm in plan.resolved.arms.names:
        factor = _correction(plan, data, [r for r in whole if r.spec.arm == arm], cluster)
        if factor is None:
            return None
        for spec in specs:
            if spec.arm == arm:
                trained = factor * trial_cost(plan, data, spec)
                if once and _keeps_workers(plan.resolved.resources.reuse_workers, once, trained):
                    seconds[spec.trial_id], first = trained, once
                else:
                    seconds[spec.trial_id] = trained + (startup or 0.0)
    per_arm = {
        arm: cluster.devices_per_trial * sum(seconds[s.trial_id] for s in specs if s.arm == arm)
        for arm in plan.resolved.arms.names
    }
    return Forecast(
        trials=len(specs),
        of=plan.trials,
        # Workers that are kept must come up once.
        seconds=first + _makespan(plan, specs, seconds, cluster.trials_at_once),
        device_seconds=per_arm,
        startup_known=startup is not None,
        factor=spread(_ratios(plan, data, whole), len(specs)),
    )


def _keeps_workers(reuse_workers: bool | str, startup: float, trained: float) -> bool:
    """Whether a trial of so many seconds finds its workers there, and leaves them to the next."""
    if reuse_workers == "auto":
        return startup > STARTUP_SHARE * trained
    return bool(reuse_workers)


def all_specs(plan: StudyPlan) -> list[TrialSpec]:
    """Every trial of the plan. Who wins is not known, so confirm trials have the first search
    trial's hyperparameters."""
    first = {cell_of(s): s.hyperparameters for s in reversed(plan.search)}
    confirm = [s for cell in plan.cells for s in plan.confirm(cell, first[cell])]
    return [*plan.search, *confirm]


def trial_cost(plan: StudyPlan, data: DataSummary, spec: TrialSpec) -> float:
    """Seconds of a trial by the probe; without one, its steps."""
    if plan.model.probe is None:
        return float(spec.steps)
    config = plan.resolved
    # The first trial of a subset fills the prefix cache for the others.
    first = spec.stage is Stage.SEARCH and spec.index == 0
    run = RunShape(
        first_pass=math.ceil(spec.size / config.training.global_batch_size) if first else 0,
        evaluations=config.training.evaluations,
    )
    known = (config, plan.model, spec.arm)
    seconds = trial_seconds(*known, spec.hyperparameters, spec.steps, run, spec.seed)
    return seconds + _final_scores(arm_tariff(*known), data, spec)


def _final_scores(tariff: Tariff, data: DataSummary, spec: TrialSpec) -> float:
    """Confirm trials score the test split and the retention text once."""
    if spec.stage is not Stage.CONFIRM:
        return 0.0
    return tariff.evaluation * (data.test + data.retention) / max(1, data.validation)


def _is_whole(record: TrialRecord) -> bool:
    return (
        record.state is TrialState.COMPLETE
        and record.outcome is not None
        and record.outcome.status == "finished"
        and record.outcome.device_seconds > 0
    )


def _correction(
    plan: StudyPlan, data: DataSummary, whole: Sequence[TrialRecord], cluster: Cluster
) -> float | None:
    """Seconds that a unit of `trial_cost` really takes in an arm; None: nothing is known."""
    if whole:
        spent = sum(r.outcome.device_seconds for r in whole if r.outcome)
        cost = sum(trial_cost(plan, data, r.spec) for r in whole)
        return spent / cluster.workers_per_trial / cost
    return cluster.slowdown if plan.model.probe is not None else None


def _ratios(plan: StudyPlan, data: DataSummary, whole: Sequence[TrialRecord]) -> list[list[float]]:
    """Of each arm's ended trials: what they took over `trial_cost`."""
    return [
        [
            r.outcome.device_seconds / trial_cost(plan, data, r.spec)
            for r in whole
            if r.outcome and r.spec.arm == arm
        ]
        for arm in plan.resolved.arms.names
    ]


def _measured_startup(whole: Sequence[TrialRecord], workers: int) -> float | None:
    """Mean seconds that ended trials spent outside their workers' own time."""
    waits = [
        max(0.0, r.finished - r.started - r.outcome.device_seconds / workers)
        for r in whole
        if r.started is not None and r.finished is not None and r.outcome
    ]
    return sum(waits) / len(waits) if waits else None


def _makespan(
    plan: StudyPlan, specs: Sequence[TrialSpec], seconds: Mapping[str, float], at_once: int
) -> float:
    """Wall seconds, trials handed out as the ledger does: confirm trials as soon as their
    replicate's search is over; one search trial at a time in a replicate whose suggestions or
    pruning depend on results."""
    search = plan.resolved.search
    in_sequence = search.sampler != "sobol" or search.pruner != "none"
    waiting = [s for s in specs if s.stage is Stage.SEARCH]
    later = [s for s in specs if s.stage is Stage.CONFIRM]
    open_search: dict[Cell, int] = {}
    for spec in waiting:
        open_search[cell_of(spec)] = open_search.get(cell_of(spec), 0) + 1
    ready = [s for s in later if not open_search.get(cell_of(s))]
    running: list[tuple[float, int, TrialSpec]] = []
    now, number = 0.0, 0
    while waiting or ready or running:
        busy = {cell_of(s) for _, _, s in running} if in_sequence else set()
        started = _next(ready, waiting, busy) if len(running) < at_once else None
        if started is not None:
            number += 1
            heapq.heappush(running, (now + seconds[started.trial_id], number, started))
            continue
        now, _, done = heapq.heappop(running)
        if done.stage is Stage.SEARCH:
            cell = cell_of(done)
            open_search[cell] -= 1
            if not open_search[cell]:
                ready += [s for s in later if cell_of(s) == cell]
    return now


def _next(ready: list[TrialSpec], waiting: list[TrialSpec], busy: set[Cell]) -> TrialSpec | None:
    if ready:
        return ready.pop(0)
    for position, spec in enumerate(waiting):
        if cell_of(spec) not in busy:
            return waiting.pop(position)
    return None
