"""The worker groups of a running study: Ray Train runs that take one trial after another.

The driver owns them: Tune throws idle actors away, so groups must not belong to its trainables.
Their `fit` calls block, in the threads of one actor; a thread of the driver that still spoke to
Ray while it is shut down would end the process.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.basics import surroundings
from study.basics.errors import ResourceError, TrialError
from study.orchestration.cluster import cluster
from study.orchestration.cluster.capacity import Capacity
from study.orchestration.groups.failures import failure_reason
from study.orchestration.groups.switchboard import Switchboard
from study.orchestration.groups.worker_group import GroupStarter
from study.protocol.records import Measurement, OutcomeStatus

log = logging.getLogger(__name__)

_START_TRIES = 6
"""Groups in a row whose workers did not come up, before the study stops. The pauses between them
double from a second on: a node that has just died is only found out after a while."""
_POLL_SECONDS = 0.25
_MOST_GROUPS = 1000
_WATCH_SECONDS = 120.0
"""So long the watcher may fail at every look before the study stops."""


@dataclass
class _Group:
    """A group that the switchboard has been told of, or is about to be.

    Attributes:
        nodes_left: how many nodes had left when it was started.
        run: its result to be; None while it has not been started.
    """

    nodes_left: int
    run: Any = None


class WorkerPool:
    """Starts groups as trials need them, as many as the cluster holds, and replaces those that are
    lost. Where nothing fits any more it waits for nodes, and gives up when that takes too long.

    Args:
        worker: what each worker of a group runs.
        payload: for `worker`; the group's name and the switchboard's are added.
        capacity: the shape of a group, and how many there may be at once.
        reuse_workers: ``auto``, true or false, as in a study file.
    """

    def __init__(
        self,
        worker: Callable[[dict[str, Any]], None],
        payload: Mapping[str, Any],
        results_dir: Path,
        capacity: Capacity,
        reuse_workers: bool | str,
    ) -> None:
        self.name = f"switchboard-{uuid.uuid4().hex[:12]}"
        self._run = (worker, capacity.workers, results_dir)
        self._payload, self._capacity = dict(payload), capacity
        self._lock = threading.RLock()
        # What follows changes only once what it stands for has happened: the watcher does again
        # whatever was cut short.
        self._groups: dict[str, _Group] = {}
        self._numbers = itertools.count(1)
        self._failed_starts = 0
        self._start_at = math.inf
        self._room = capacity.trials  # for which groups were started last
        self._closing = False
        self._interrupt_unheard = False
        self._left = threading.Event()
        self._broken = ""
        self.switchboard: Any = _beside_the_driver(Switchboard, 10_000, name=self.name).remote(
            reuse_workers
        )
        # Train asks Ray's State API whether its controller lives, and frees the group's resources
        # if not.
        here = surroundings.for_cluster(cluster.address())
        self._starter: Any = _beside_the_driver(
            GroupStarter, _MOST_GROUPS, max_restarts=-1, runtime_env={"env_vars": here}
        ).remote()
        self._watcher = threading.Thread(target=self._watch, name="groups", daemon=True)
        self._watcher.start()

    def follow(self, backlog: int) -> int:
        """Tell how many trials could run if there were room, and hear how many may."""
        self._capacity.backlog = backlog
        return self._capacity.trials

    @property
    def has_given_up(self) -> bool:
        """As far as is known without asking whether the study is `broken`."""
        return bool(self._broken)

    @property
    def broken(self) -> str:
        """Why no trial can be trained any more; empty while they can."""
        if not self._broken:
            try:
                ray.get(self.switchboard.unserved.remote(), timeout=30)
            except RayError as error:
                self._broken = f"The study's switchboard is gone: {failure_reason(error)}"
        return self._broken

    def submit(self, task_id: str, payload: Mapping[str, Any], wants_verdicts: bool) -> None:
        """Queue a task (see `Switchboard.submit`), and start a group if none is free for it."""
        ray.get(self.switchboard.submit.remote(task_id, dict(payload), wants_verdicts))
        with self._lock:
            self._start_waiting()

    def run_baseline(self) -> dict[str, Any]:
        """Measure the base model on a group that trials will use afterwards.

        Raises:
            TrialError: it failed.
            ResourceError: no group could be started.
        """
        outcome = self.run_task("baseline", {"spec": None})
        if outcome is None:
            raise ResourceError(self._broken or "The study was interrupted.")
        if outcome["status"] != OutcomeStatus.FINISHED:
            raise TrialError(outcome["reason"])
        return outcome["baseline"]

    def run_task(
        self,
        task_id: str,
        payload: Mapping[str, Any],
        measured: Callable[[Measurement], None] = lambda measurement: None,
    ) -> dict[str, Any] | None:
        """Run one task, on one group after another if need be, and wait for its end.

        Args:
            measured: gets each evaluation.

        Returns:
            Its outcome; None if it was interrupted.
        """
        self.submit(task_id, payload, wants_verdicts=False)
        for index in itertools.count():
            event = ray.get(self.switchboard.next_event.remote(task_id, index))
            if event["kind"] != "measured":
                return event.get("outcome")
            measured(event["measurement"])
        raise AssertionError  # a task ends

    def decide(self, task_id: str, step: int, goes_on: bool) -> None:
        """Tell whether a task goes on after the evaluation at `step`."""
        self.switchboard.decide.remote(task_id, step, goes_on)

    def stop(self, task_id: str) -> None:
        """Nobody wants this task's result any more."""
        self.switchboard.stop.remote(task_id)
        self.forget(task_id)

    def forget(self, task_id: str) -> None:
        """The end of a task has been booked."""
        self.switchboard.forget.remote(task_id)

    def interrupt(self) -> None:
        """Let every trial write a checkpoint and pause."""
        with self._lock:
            self._closing = self._interrupt_unheard = True
            ray.get(self.switchboard.interrupt.remote())
            self._interrupt_unheard = False

    def close(self) -> None:
        """End all groups, and with them whatever they do; after it Ray may be shut down."""
        with self._lock:
            self._closing = True
        self._left.set()
        self._watcher.join()
        try:
            # What its calls started goes with it.
            ray.kill(self._starter)
            ray.kill(self.switchboard)
        except RayError as error:
            log.warning("closing: %s", error)

    def _start(self) -> None:
        if self._closing or len(self._groups) >= self._capacity.trials:
            return
        # A part of the pool's own name: Train would resume an earlier run of the same name.
        name = f"group{next(self._numbers)}-{self.name[-6:]}"
        group = self._groups[name] = _Group(self._capacity.nodes_left)
        ray.get(self.switchboard.group_started.remote(name))
        worker, workers, results_dir = self._run
        payload = self._payload | {"group": name, "switchboard": self.name}
        group.run = self._starter.run.remote(worker, name, payload, workers, results_dir)

    def _watch(self) -> None:
        """Until the pool is closed: look after the groups, whatever fails."""
        failing_since = math.inf
        while not self._left.is_set():
            try:
                self._look_after()
                failing_since = math.inf
            except Exception as error:
                log.warning("%s", error, exc_info=failing_since == math.inf)
                failing_since = min(failing_since, time.monotonic())
                if time.monotonic() - failing_since >= _WATCH_SECONDS and not self._closing:
                    self._give_up(f"Worker groups cannot be looked after: {failure_reason(error)}")
                self._left.wait(_POLL_SECONDS)

    def _look_after(self) -> None:
        """See which groups have ended, and start those that wait. Every step of it may raise, and
        is done again at the next look."""
        if self._interrupt_unheard:
            self.interrupt()
        if not self._closing:
            self._follow_cluster()
        if time.monotonic() >= self._start_at:
            self._start_waiting()
        with self._lock:
            groups = dict(self._groups)
        runs = [group.run for group in groups.values() if group.run is not None]
        ended: list[Any] = []
        if runs:
            ended, _ = ray.wait(runs, timeout=_POLL_SECONDS)
        elif not groups:
            self._left.wait(_POLL_SECONDS)
        for name, group in groups.items():
            if group.run is None or group.run in ended:
                self._ended(name, group)

    def _follow_cluster(self) -> None:
        room = self._capacity.look()
        if room > self._room:
            self._start_waiting()
        self._room = room
        if self._capacity.missed:
            self._give_up(self._capacity.missed)

    def _give_up(self, why: str) -> None:
        self._broken = why
        self._interrupt_unheard = True

    def _start_waiting(self) -> None:
        with self._lock:
            self._start_at = -math.inf
            for _ in range(ray.get(self.switchboard.unserved.remote())):
                self._start()
            self._start_at = math.inf

    def _ended(self, name: str, group: _Group) -> None:
        with self._lock:
            reason = "It could not be started"
            if group.run is not None:
                try:
                    reason = ray.get(group.run)
                except RayError as error:
                    reason = failure_reason(error)
            if reason:
                log.warning("%s: %s", name, reason)
            if not self._closing:
                self._capacity.look(at_once=True)
            node_lost = self._capacity.nodes_left > group.nodes_left
            ended = ray.get(self.switchboard.group_ended.remote(name, reason, node_lost))
            del self._groups[name]
            if ended["refused"]:
                self._give_up(ended["refused"])
                return
            if ended["was_ready"]:
                self._failed_starts = 0
                self._start_waiting()
                return
            self._failed_starts += not node_lost
            # With other groups at work there is no hurry: they take what waits. Without nodes the
            # capacity says how long to wait.
            if self._failed_starts < _START_TRIES or self._groups or not self._capacity.trials:
                pause = 2.0 ** min(max(0, self._failed_starts - 1), _START_TRIES)
                self._start_at = time.monotonic() + pause
            elif not self._closing:
                self._give_up(
                    f"Workers did not start {_START_TRIES} times in a row: {reason or 'no reason'}"
                )


def _beside_the_driver(kind: type, threads: int, **options: Any) -> Any:
    """An actor class whose actor lives on the driver's node and takes no CPU from workers."""
    node = ray.get_runtime_context().get_node_id()
    return ray.remote(kind).options(
        num_cpus=0,
        max_concurrency=threads,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        **options,
    )
