"""A study of very many, very short trials: does the driver keep up?

The trials' training function only sleeps. Everything else is the driver's: plan, store, ledger,
Tune.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from study.basics import surroundings
from study.config.load import StudyConfig, load_config
from study.orchestration.observer import QuietObserver
from study.protocol.records import Measurement, TrialOutcome, TrialSpec, TrialState
from tests.benchmarks.sweep_scripts.work import Work

TRAINING_SECONDS = 0.010
WINDOW = 100
"""Trials at the beginning and at the end that are compared."""
_MEMORY_EVERY = 10
"""Trials; reading it takes longer than booking one."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of trials: seconds per trial beyond training, and the driver's own memory."""

    overhead_seconds: float
    driver_bytes: int


class Stopwatch(QuietObserver):
    """Notes when each trial ended, and the driver's memory then."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.memory: dict[int, int] = {}
        self.failures: list[str] = []
        self._driver = psutil.Process()

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        if state is not TrialState.COMPLETE:
            self.failures.append(f"{spec.trial_id}: {state} {outcome.reason}")
        if len(self.ends) % _MEMORY_EVERY == 0:
            self.memory[len(self.ends)] = self._driver.memory_full_info().uss
        self.ends.append(time.perf_counter())

    def stretch(self, first: int, last: int) -> Stretch:
        """Of the trials after `first` up to `last`, 0-based."""
        seconds = (self.ends[last] - self.ends[first]) / (last - first)
        memory = max(b for trial, b in self.memory.items() if first <= trial <= last)
        return Stretch(seconds - TRAINING_SECONDS, memory)


def short_training(spec: TrialSpec, report: Callable[[Measurement], None]) -> TrialOutcome:
    """In a trial's stead: a nap, one evaluation, an outcome."""
    time.sleep(TRAINING_SECONDS)
    loss = abs(math.log(spec.hyperparameters["learning_rate"] / 3e-3))
    measurement = Measurement(
        step=spec.steps, tokens=1, epoch=1.0, phase=0, train_loss=loss, validation_loss=loss,
        learning_rate=0.0, grad_norm=1.0, clipped_share=0.0, tokens_per_second=1.0,
        seconds=TRAINING_SECONDS, device_seconds=TRAINING_SECONDS, peak_memory_bytes=1,
    )  # fmt: skip
    report(measurement)
    return TrialOutcome(status="finished", score=loss, best_step=spec.steps)


def napping_worker(payload: dict[str, Any]) -> None:
    """In `worker_group.group_worker`'s stead: the same conversation, a nap for each trial."""
    import ray

    from study.orchestration.groups.worker import Line, set_up

    _, placement, _ = set_up(payload)
    line = Line(payload["group"], ray.get_actor(payload["switchboard"]), placement)
    while (task := line.next_task()) is not None:
        spec = TrialSpec.from_dict(task["spec"])
        line.finished(task, short_training(spec, line.listen(task, spec).report).to_dict())


def run_driver(config: StudyConfig, observer: QuietObserver) -> None:
    """Every trial through the driver's own path, with `napping_worker` for the workers' part.

    The one place in the benchmarks that knows the inside of `study.orchestration`.
    """
    from study.orchestration.cluster import cluster
    from study.orchestration.cluster.capacity import Capacity
    from study.orchestration.prepare import prepare_study
    from study.store.study_store import StudyStore

    surroundings.set_environment()
    import ray

    from study.orchestration.ledger.ledger import Ledger
    from study.orchestration.runner import make_pool, tune_trials

    store = StudyStore.create(config)
    prepared = prepare_study(config)
    cluster.start_ray()
    workers = cluster.choose_workers(config.resources, cluster.living_nodes())
    data, capacity = prepared.data.fingerprint, Capacity(workers, config.resources)
    pool = make_pool(config, capacity, data, napping_worker)
    try:
        tune_trials(Ledger(prepared.plan, store, observer, 1), pool, config)
    finally:
        pool.close()
        ray.shutdown()


def main() -> None:
    folder = Path(sys.argv[1])
    work, stopwatch = Work.read(folder), Stopwatch()
    trials = len(work.hyperparameters)
    run_driver(load_config(work.study_file), stopwatch)
    if stopwatch.failures or len(stopwatch.ends) != trials:
        raise SystemExit(f"{len(stopwatch.ends)} of {trials} trials ended {stopwatch.failures[:3]}")
    window = min(WINDOW, trials // 2)
    found = {
        "window": window,
        "first": dataclasses.asdict(stopwatch.stretch(0, window)),
        "last": dataclasses.asdict(stopwatch.stretch(trials - 1 - window, trials - 1)),
    }
    (folder / "many.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
