"""The pool, with Ray replaced by threads that can fail at any call: no task is ever lost.

The switchboard and the capacity are the real ones. A group's workers are played by the test: it
takes its first task, which fails with the group; a later group finishes it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayError

from study.config.load import ResourcesConfig
from study.orchestration.cluster.capacity import Capacity
from study.orchestration.cluster.workers import Workers
from study.orchestration.groups import pool as pool_module
from study.orchestration.groups.pool import WorkerPool
from study.orchestration.groups.switchboard import Switchboard

SECONDS = 20


class Cut(RayError):
    """The connection broke during a call."""


class Cluster:
    """What the pool asks of Ray: actors' calls, and waiting for them.

    Attributes:
        faults: how often each point raises, by name; ``NAME`` raises before anything has happened,
            ``NAME, answered`` afterwards.
        groups: runs in progress.
    """

    def __init__(self) -> None:
        self.faults, self.met = Counter[str](), Counter[str]()
        self.nodes = [{"CPU": 1.0}]
        self.groups: dict[str, Future[str]] = {}
        self.began: list[str] = []
        self.board: Switchboard | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def trip(self, point: str) -> None:
        if self.faults[point] > 0:
            self.faults[point] -= 1
            self.met[point] += 1
            raise Cut(point)

    def actor(self, kind: type, *_: Any, **__: Any) -> Any:
        """In place of `_beside_the_driver`."""

        class Handle:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                if kind is not Switchboard:
                    return _Starter(self)
                self.board = Switchboard(*arguments)
                return _Calls(self)

        return Handle

    def say(self, name: str, *arguments: Any) -> Future[Any]:
        """Call the switchboard, without faults."""
        return asyncio.run_coroutine_threadsafe(getattr(self.board, name)(*arguments), self._loop)

    # In place of the module `ray`

    def get(self, answer: Any, timeout: float | None = None) -> Any:
        if isinstance(answer, Future):
            return answer.result(timeout or SECONDS)
        name, future = answer
        found = future().result(timeout or SECONDS)
        self.trip(f"{name}, answered")
        return found

    def wait(self, runs: list[Future[str]], timeout: float) -> tuple[list[Any], list[Any]]:
        self.trip("wait")
        done, left = wait_for_futures(runs, timeout, FIRST_COMPLETED)
        return list(done), list(left)

    def kill(self, _: Any) -> None:
        pass

    def look(self) -> list[dict[str, float]]:
        self.trip("look")
        return self.nodes

    def tell(self, _: str) -> None:
        self.trip("tell")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class _Calls:
    """The switchboard's handle."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        cluster = self._cluster

        class Method:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                def call() -> Future[Any]:
                    cluster.trip(name)
                    return cluster.say(name, *arguments)

                return name, call

        return Method


class _Starter:
    """`GroupStarter`, whose runs the test ends."""

    def __init__(self, cluster: Cluster) -> None:
        self.run = self
        self._cluster = cluster

    def remote(self, _worker: Any, name: str, *_: Any) -> Future[str]:
        self._cluster.trip("run")
        run = self._cluster.groups[name] = Future()
        self._cluster.began.append(name)
        return run


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster()
    monkeypatch.setattr(pool_module, "ray", cluster)
    monkeypatch.setattr(pool_module, "_beside_the_driver", cluster.actor)
    monkeypatch.setattr(pool_module.cluster, "address", lambda: "here")
    # Looks at the nodes and tries again at once.
    monkeypatch.setattr("study.orchestration.cluster.capacity.LOOK_SECONDS", 0.0)
    monkeypatch.setattr(pool_module, "_POLL_SECONDS", 0.01)
    yield cluster
    cluster.close()


@pytest.fixture
def pool(cluster: Cluster) -> Iterator[WorkerPool]:
    capacity = Capacity(Workers(1, 1, 0), ResourcesConfig(), cluster.tell, nodes=cluster.look)
    pool = WorkerPool(lambda payload: None, {}, Path(), capacity, reuse_workers=True)
    yield pool
    pool.close()


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError(f"never: {what}")


def begin(cluster: Cluster) -> str:
    """The next group comes up and takes its first task; the group's name."""
    name = until(lambda: cluster.began.pop(0) if cluster.began else None, "another group starts")
    assert cluster.say("next_task", name, 0).result(SECONDS) is not None, "it found no task"
    return name


def finish(cluster: Cluster, task_id: str) -> None:
    attempt = cluster.board._tasks[task_id].attempt  # type: ignore[union-attr]
    outcome = {"status": "finished", "reason": ""}
    cluster.say("finished", task_id, attempt, outcome).result(SECONDS)
    event = cluster.say("next_event", task_id, 0).result(SECONDS)
    assert event["outcome"]["status"] == "finished"


LOST_GROUP = (
    "wait",
    "look",
    "tell",
    "group_ended",
    "group_ended, answered",
    "unserved",
    "unserved, answered",
    "group_started",
    "group_started, answered",
    "run",
)


@pytest.mark.parametrize("point", LOST_GROUP)
def test_a_task_whose_group_is_lost_is_handed_on_whatever_call_fails_meanwhile(
    cluster: Cluster, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    # The only look at the nodes is then that of a group's end.
    monkeypatch.setattr("study.orchestration.cluster.capacity.LOOK_SECONDS", math.inf)
    pool.submit("trial", {}, wants_verdicts=False)
    first = begin(cluster)
    cluster.nodes = [{"CPU": 1.0}] * 2  # else nobody is told anything
    cluster.faults[point] = 1
    cluster.groups.pop(first).set_result("ConnectionError: lost")
    begin(cluster)
    finish(cluster, "trial")
    assert cluster.met[point] and not pool.broken


@pytest.mark.parametrize("point", ["look", "tell", "unserved", "group_started", "run"])
def test_a_node_that_joins_is_used_whatever_call_fails_meanwhile(
    cluster: Cluster, pool: WorkerPool, point: str
) -> None:
    for name in ("one", "two"):
        pool.submit(name, {}, wants_verdicts=False)
    begin(cluster)
    cluster.faults[point] = 1
    cluster.nodes = [{"CPU": 1.0}] * 2
    begin(cluster)
    assert cluster.met[point]


@pytest.mark.parametrize("point", ["interrupt", "interrupt, answered"])
def test_an_interrupt_that_was_not_heard_is_said_again(
    cluster: Cluster, pool: WorkerPool, point: str
) -> None:
    pool.submit("trial", {}, wants_verdicts=False)
    pool.submit("waiting", {}, wants_verdicts=False)
    begin(cluster)
    cluster.faults[point] = 2
    with pytest.raises(Cut):
        pool.interrupt()
    until(lambda: not cluster.faults[point], "it is said again")
    assert cluster.say("next_event", "waiting", 0).result(SECONDS)["kind"] == "interrupted"


def test_nodes_that_are_missed_for_too_long_end_the_study_though_the_first_word_is_lost(
    cluster: Cluster, pool: WorkerPool
) -> None:
    pool.submit("one", {}, wants_verdicts=False)
    pool.submit("two", {}, wants_verdicts=False)
    begin(cluster)
    cluster.faults["interrupt"] = 1
    pool._capacity.missed = "No node came."
    assert cluster.say("next_event", "two", 0).result(SECONDS)["kind"] == "interrupted"
    assert pool.broken == "No node came."


def test_a_watcher_that_fails_for_good_ends_the_study_and_no_trial_waits(
    cluster: Cluster, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_WATCH_SECONDS", 0.1)
    pool.submit("trial", {}, wants_verdicts=False)
    first = begin(cluster)
    cluster.faults["look"] = 10**9
    cluster.groups.pop(first).set_result("ConnectionError: lost")
    assert cluster.say("next_event", "trial", 0).result(SECONDS)["kind"] == "interrupted"
    assert "cannot be looked after" in pool.broken
