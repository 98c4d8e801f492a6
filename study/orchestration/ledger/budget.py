"""Whether another trial still fits the study's limits on device hours and wall hours.

Arithmetic on trials that have ended, on a clock that is handed in; it reads no store. Confirm
trials come first: a search trial may start only if the confirm trials of every replicate that has
begun would still fit behind it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from study.protocol.plan import Cell, StudyPlan, cell_of
from study.protocol.records import Measurement, Stage, StepCosts, TrialRecord, TrialSpec, TrialState
from study.protocol.results import spent_device_seconds_of

_HOUR = 3600.0


@dataclass(frozen=True)
class Cost:
    """What a trial takes: device-seconds, and wall seconds from its start to its end."""

    device_seconds: float = 0.0
    wall_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.device_seconds + other.device_seconds, self.wall_seconds + other.wall_seconds
        )

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.device_seconds * factor, self.wall_seconds * factor)


@dataclass
class _Tally:
    """Trials that tell what others will cost, summed."""

    trials: int = 0
    steps: int = 0
    cost: Cost = Cost()


class Predictor:
    """What a trial will cost, from those that have ended: pruned and stopped-early ones too, but
    no failures, which say nothing about a trial that works."""

    def __init__(self, plan: StudyPlan) -> None:
        self._probe, self._workers = plan.model.probe, plan.resolved.resources.workers_per_trial
        self._tallies: dict[tuple[str, int], _Tally] = defaultdict(_Tally)
        self._arms: dict[str, _Tally] = defaultdict(_Tally)

    def learn(self, record: TrialRecord) -> None:
        """Take a trial that has ended into account."""
        if record.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        spec, started, finished = record.spec, record.started, record.finished
        wall = finished - started if started is not None and finished is not None else 0.0
        steps = record.measurements[-1].step if record.measurements else spec.steps
        for tally in (self._tallies[spec.arm, spec.size], self._arms[spec.arm]):
            tally.trials += 1
            tally.steps += steps
            tally.cost += Cost(spent_device_seconds_of(record), wall)

    def predict(self, spec: TrialSpec, stage: Stage | None = None) -> Cost:
        """The mean of the trials of the same arm and size; else those of other sizes, by the step;
        else what the probe's steps and evaluations take; else nothing.

        Args:
            stage: the cost of a confirm trial like this search trial. It goes to its last step.
        """
        same, arm = self._tallies.get((spec.arm, spec.size)), self._arms.get(spec.arm)
        if same is not None and (stage or spec.stage) is Stage.SEARCH:
            return same.cost * (1 / same.trials)
        known = same or arm
        if known is not None:
            return known.cost * (spec.steps / known.steps)
        if self._probe is not None:
            wall = _probed_seconds(self._probe, spec)
            return Cost(wall * self._workers, wall)
        return Cost()


def _probed_seconds(probe: StepCosts, spec: TrialSpec) -> float:
    costs = probe.arms[spec.arm]
    return spec.steps * costs.step + len(spec.evaluation_steps) * costs.evaluation


class Budget:
    """Counts what a study has spent, and says which trial would exceed its limits.

    Args:
        plan: of the study.
        history: every trial that ever started, of all sessions.
        slots: trials that may run at the same time.
        clock: wall seconds of the study so far, over all its sessions.

    Attributes:
        slots: as above; it changes as nodes join and leave.
    """

    def __init__(
        self,
        plan: StudyPlan,
        history: Iterable[TrialRecord],
        slots: int,
        clock: Callable[[], float],
    ) -> None:
        self._limits = plan.resolved.budget
        self._seeds = plan.resolved.confirm.seeds
        self.slots, self._clock = slots, clock
        self._predictor = Predictor(plan)
        self._spent = 0.0
        self._left_over: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        # The longest of each cell, for confirm trials whose winner is not known yet.
        self._typical: dict[Cell, TrialSpec] = {}
        for spec in sorted(plan.search, key=lambda s: s.steps):
            self._typical[cell_of(spec)] = spec
        for record in history:
            if record.state is TrialState.RUNNING:
                self._left_over[record.spec.trial_id] = spent_device_seconds_of(record)
            else:
                self.ended(record)

    @property
    def is_limited(self) -> bool:
        """The study has a limit at all."""
        return self._limits.device_hours is not None or self._limits.wall_hours is not None

    def started(self, spec: TrialSpec) -> None:
        """A trial starts now, or goes on from a former session."""
        self._started[spec.trial_id] = self._clock()
        self._measured[spec.trial_id] = self._left_over.pop(spec.trial_id, 0.0)

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        """A running trial has cost so much already."""
        self._measured[spec.trial_id] = measurement.device_seconds

    def ended(self, record: TrialRecord) -> None:
        """A trial has ended, or had before."""
        self._measured.pop(record.spec.trial_id, None)
        self._spent += spent_device_seconds_of(record)
        self._predictor.learn(record)

    def refusal(
        self, spec: TrialSpec, running: Collection[TrialSpec], owed: Mapping[Cell, int]
    ) -> str | None:
        """Why a trial must not start now; None if it may.

        Args:
            running: the trials that run.
            owed: confirm trials that must follow, in the replicates that have begun; a search
                trial's own need not be among them.
        """
        reserved = {} if spec.stage is Stage.CONFIRM else self._reserved(cell_of(spec), owed)
        return self._device_refusal(spec, running, reserved) or self._wall_refusal(
            spec, running, reserved
        )

    def _reserved(self, own: Cell, owed: Mapping[Cell, int]) -> dict[Cell, tuple[int, Cost]]:
        """(How many, what each costs) of the confirm trials that a search trial must leave room
        for."""
        return {
            cell: (count, self._predictor.predict(self._typical[cell], Stage.CONFIRM))
            for cell, count in ({own: self._seeds} | dict(owed)).items()
            if count
        }

    def _device_refusal(
        self,
        spec: TrialSpec,
        running: Collection[TrialSpec],
        reserved: Mapping[Cell, tuple[int, Cost]],
    ) -> str | None:
        if self._limits.device_hours is None:
            return None
        ended = self._spent + sum(self._left_over.values())
        so_far = [self._measured.get(s.trial_id, 0.0) for s in running]
        predicted = [self._predictor.predict(s).device_seconds for s in running]
        return _refusal(
            spec,
            "device_hours",
            self._limits.device_hours,
            used=ended + sum(so_far),
            committed=ended + sum(map(max, predicted, so_far)),
            wanted=self._predictor.predict(spec).device_seconds
            + sum(count * cost.device_seconds for count, cost in reserved.values()),
        )

    def _wall_refusal(
        self,
        spec: TrialSpec,
        running: Collection[TrialSpec],
        reserved: Mapping[Cell, tuple[int, Cost]],
    ) -> str | None:
        if self._limits.wall_hours is None:
            return None
        now = self._clock()
        left = [(spec, self._predictor.predict(spec).wall_seconds)]
        for other in running:
            end = self._started[other.trial_id] + self._predictor.predict(other).wall_seconds
            left.append((other, max(0.0, end - now)))
        confirm = {cell: cost.wall_seconds for cell, (_, cost) in reserved.items()}
        work = sum(seconds for _, seconds in left)
        work += sum(count * cost.wall_seconds for count, cost in reserved.values())
        # A search trial's confirm trials come after it, whatever runs beside it.
        chains = [seconds + confirm.get(cell_of(s), 0.0) for s, seconds in left]
        wanted = max(*chains, *confirm.values(), work / max(1, self.slots))
        limit = self._limits.wall_hours
        return _refusal(spec, "wall_hours", limit, used=now, committed=now, wanted=wanted)


def _refusal(
    spec: TrialSpec, key: str, limit_hours: float, *, used: float, committed: float, wanted: float
) -> str | None:
    limit, total = limit_hours * _HOUR, committed + wanted
    # What was predicted may meet the limit but for rounding.
    if committed < limit and (total <= limit or math.isclose(total, limit)):
        return None
    behind = " with the confirm trials that must follow" if spec.stage is Stage.SEARCH else ""
    return (
        f"budget.{key} is {limit_hours:g}, {hours(used)} are used, and {spec.trial_id}{behind} "
        f"would take about {hours(wanted)} more. Raise budget.{key} in the study file and run the "
        "study again to go on"
    )


def hours(seconds: float) -> str:
    """``1.25``, ``0.003``: hours as they stand beside a limit of a study file."""
    return f"{seconds / _HOUR:.3g}"
