"""Where trials and worker groups meet: who waits, who trains what, and what became of it.

One actor of the study's driver. Tune's trainables hand in tasks and wait for events; the workers
of a group take tasks and report; the driver says when a group has ended. A task whose group is
lost goes to another one, and goes on from its checkpoint there. No Ray in here: the class runs
in any event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from study.orchestration.groups.tasks import Event, Group, Task
from study.protocol.records import OUT_OF_MEMORY, Measurement, OutcomeStatus

MAX_RETRIES = 2
"""Times a task is started again after its group was lost; memory has a limit of its own, and a
node that left counts for nothing."""
STARTUP_SHARE = 0.05
"""With `reuse_workers: auto`, a group whose start took more than this share of a task goes on."""
_KEPT_ENDS = 64


class Switchboard:
    """See the module. Every method is a coroutine that runs between others' awaits only.

    Args:
        reuse_workers: ``auto``, true or false, as in a study file.
        clock: seconds.
    """

    def __init__(
        self, reuse_workers: bool | str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reuse, self._clock = reuse_workers, clock
        self._tasks: dict[str, Task] = {}
        self._ends: deque[str] = deque()
        self._queue: deque[Task] = deque()
        self._groups: dict[str, Group] = {}
        self._gone: dict[str, dict[str, Any]] = {}  # what `group_ended` says of groups, for ever
        self._offers: dict[str, list[Any]] = {}
        self._closing = self._interrupting = False
        self._changed = asyncio.Condition()

    # For the driver and Tune's trainables

    async def submit(
        self, task_id: str, payload: dict[str, Any], wants_verdicts: bool = False
    ) -> None:
        """Queue a task. One of the same name that has not ended is left as it is, for whoever
        submits it again because its trainable died.

        Args:
            payload: goes to the workers.
            wants_verdicts: `decide` is called for every measurement but the last.
        """
        known = self._tasks.get(task_id)
        if known is None:
            task = Task(task_id, payload, wants_verdicts)
            self._queue.append(task)
            self._tasks[task_id] = task
            if self._interrupting:
                self._end(task, {"kind": "interrupted"})
        await self._notify()

    async def next_event(self, task_id: str, index: int) -> Event:
        """The task's event number `index`, from 0, as soon as there is one."""
        task = self._tasks[task_id]
        await self._until(lambda: len(task.events) > index)
        return task.events[index]

    async def decide(self, task_id: str, step: int, goes_on: bool) -> None:
        """Whether a task goes on after the evaluation at `step`. One that does not is stopped."""
        if task_id in self._tasks:
            self._tasks[task_id].verdicts[step] = goes_on
            await self._notify()
        if not goes_on:
            await self.stop(task_id)

    async def stop(self, task_id: str) -> None:
        """Nobody wants a task's result any more; its workers leave it before their next step."""
        task = self._tasks.get(task_id)
        if task is None or task.has_ended:
            return
        task.stopped = True
        if task in self._queue:
            self._end(task, {"kind": "ended", "outcome": {"status": OutcomeStatus.STOPPED}})
        await self._notify()

    # For workers

    async def next_task(self, group: str, number: int) -> dict[str, Any] | None:
        """The task that a group takes up after `number` others; None: the group is to end.
        Every rank asks and gets the same answer."""
        found = self._groups[group]
        if found.ready is None:
            found.ready = self._clock()
        await self._until(lambda: found.taken > number or self._ends_now(found) or self._queue)
        if found.taken <= number:
            if self._ends_now(found) or not self._queue:
                found.retired = True
                return None
            self._take(found)
        task = found.tasks[number]
        return {
            "task_id": task.task_id,
            "attempt": task.attempt,
            "micro_batch_size": task.micro_batch_size,
            **task.payload,
        }

    async def measured(self, task_id: str, attempt: int, measurement: Measurement) -> bool:
        """Keep an evaluation; whether the task goes on, which may take as long as the driver needs
        to `decide`. Evaluations that an earlier attempt reported are known already."""
        task = self._current(task_id, attempt)
        if task is None or task.stopped:
            return False
        step = measurement.step
        if step > task.reported_step:
            task.reported_step = step
            task.events.append({"kind": "measured", "measurement": measurement, "job": task.job})
            await self._notify()
        if not task.wants_verdicts:
            return True
        await self._until(lambda: step in task.verdicts or task.stopped or self._interrupting)
        return task.verdicts.get(step, not task.stopped)

    async def signalled(self, task_id: str, attempt: int) -> str:
        """``stop`` or ``pause`` as soon as a task shall; ``""`` when the attempt is over."""
        task = self._tasks.get(task_id)
        if task is None:
            return "stop"
        await self._until(
            lambda: task.stopped or self._interrupting or task.has_ended or task.attempt != attempt
        )
        if task.stopped or task.attempt != attempt:
            return "stop"
        return "" if task.has_ended else "pause"

    async def finished(self, task_id: str, attempt: int, outcome: dict[str, Any]) -> None:
        """A task has come to its end, or to a pause. Other ranks of its group may have taken up
        the next one by now."""
        task = self._current(task_id, attempt)
        if task is None:
            return
        self._groups[task.job].took = self._clock() - task.began
        if outcome["status"] != OutcomeStatus.INTERRUPTED:
            notes = [*task.notes, *outcome.get("notes", ())]
            self._end(task, {"kind": "ended", "outcome": outcome | {"notes": notes}})
        elif self._interrupting:
            self._end(task, {"kind": "interrupted"})
        else:
            self._queue_again(task, f"{task.job} made room {outcome['reason']}")
        if task.stopped and not task.has_ended:
            self._end(task, {"kind": "ended", "outcome": {"status": OutcomeStatus.STOPPED}})
        await self._notify()

    async def failed(
        self,
        task_id: str,
        attempt: int,
        kind: str,
        reason: str,
        micro_batch_size: int | None = None,
    ) -> None:
        """Why a worker is about to end with an exception; of several ranks', the first that is
        no mere ``error`` counts, for the others' are often its consequence.

        Args:
            kind: ``out_of_memory``, ``fatal`` (it would happen again), or ``error``.
            micro_batch_size: examples per forward pass, for ``out_of_memory``.
        """
        task = self._current(task_id, attempt)
        if task is None:
            return
        known = task.failure
        if known is None or (known["kind"] == "error" and kind != "error"):
            task.failure = {
                "kind": kind,
                "reason": reason,
                "micro_batch_size": micro_batch_size,
            }

    async def refused(self, group: str, reason: str) -> None:
        """A worker cannot take any task of this study, nor could another: the study is at fault,
        not a trial."""
        self._groups[group].refused = reason

    async def offer(self, place: str, references: list[Any]) -> None:
        """Leave references to objects for the other workers at a place."""
        self._offers[place] = references
        await self._notify()

    async def offered(self, place: str) -> list[Any]:
        """What was or will be left at a place."""
        await self._until(lambda: place in self._offers)
        return self._offers[place]

    async def retire(self, group: str) -> None:
        """Let a group end after its task."""
        self._groups[group].retired = True
        await self._notify()

    # For the driver

    async def group_started(self, group: str) -> None:
        """A Ray Train run has been asked for."""
        self._groups[group] = Group(group, self._clock())

    async def group_ended(self, group: str, reason: str, node_lost: bool = False) -> dict[str, Any]:
        """A Ray Train run is over. Its task, if it had one, is queued again or ended. Nothing
        happens when it is told again, by a driver that did not hear the answer.

        Args:
            reason: of its failure, or empty.
            node_lost: nodes of the cluster have left since it was started.

        Returns:
            ``was_ready``: its workers had come up; ``waiting``: tasks that no group will take;
            ``refused``: why none ever can, else empty.
        """
        found = self._groups.get(group)
        if found is not None:
            for task in reversed(found.unfinished):  # each goes to the head of the queue
                self._after_loss(task, reason, node_lost)
            for place in [p for p in self._offers if p.startswith(f"{group}/")]:
                del self._offers[place]
            self._gone[group] = {"was_ready": found.ready is not None, "refused": found.refused}
            del self._groups[group]
        await self._notify()
        ended = self._gone.get(group, {"was_ready": False, "refused": ""})
        return {**ended, "waiting": self._unserved()}

    async def unserved(self) -> int:
        """Tasks that no living group is free for, or about to be."""
        return self._unserved()

    async def interrupt(self) -> None:
        """Pause everything: running tasks at their next step, queued ones now."""
        self._interrupting = True
        for task in list(self._queue):
            self._end(task, {"kind": "interrupted"})
        await self._notify()

    async def forget(self, task_id: str) -> None:
        """The end of a task has been booked."""
        self._ends.append(task_id)
        # Not at once: its workers may still say a last word.
        while len(self._ends) > _KEPT_ENDS:
            self._tasks.pop(self._ends.popleft(), None)

    async def close(self) -> None:
        """Let all groups end."""
        self._closing = True
        await self._notify()

    # Inside

    def _current(self, task_id: str, attempt: int) -> Task | None:
        """The task, if this is its attempt in progress."""
        task = self._tasks.get(task_id)
        if task is None or task.has_ended or task.attempt != attempt or task.job == "":
            return None
        return task

    def _ends_now(self, group: Group) -> bool:
        if self._closing or self._interrupting or group.retired:
            return True
        if not group.taken or self._reuse is True:
            return False
        if self._reuse is False:
            return True
        assert group.ready is not None
        return group.ready - group.asked <= STARTUP_SHARE * group.took

    def _take(self, group: Group) -> None:
        task = self._queue[0]
        task.job = group.name
        task.failure = None
        task.attempt += 1
        task.began = self._clock()
        held = {n: t for n, t in group.tasks.items() if n == group.taken - 1 or group.works_on(t)}
        group.tasks = held | {group.taken: task}
        group.taken += 1
        self._queue.popleft()

    def _after_loss(self, task: Task, reason: str, node_lost: bool) -> None:
        failure = task.failure or {"kind": "error", "reason": reason}
        reason = failure["reason"]
        if self._interrupting:
            self._end(task, {"kind": "interrupted"})
        elif task.stopped:
            self._end(task, {"kind": "ended", "outcome": {"status": OutcomeStatus.STOPPED}})
        elif failure["kind"] == "out_of_memory":
            size = failure["micro_batch_size"] or 1
            if size > 1:
                task.micro_batch_size = size // 2
                self._queue_again(
                    task, f"Out of memory at micro-batch {size}: halved to {size // 2}"
                )
            else:
                self._fail(task, f"{OUT_OF_MEMORY}: {reason}")
        elif failure["kind"] == "fatal" or (task.retries >= MAX_RETRIES and not node_lost):
            again = f" (tried {task.retries + 1} times)" if task.retries else ""
            self._fail(task, reason + again)
        else:
            task.retries += not node_lost
            self._queue_again(task, f"Went on in another worker group: {reason}")

    def _queue_again(self, task: Task, note: str) -> None:
        task.notes.append(note[:300])
        self._queue.appendleft(task)
        task.job = ""

    def _fail(self, task: Task, reason: str) -> None:
        outcome = {"status": OutcomeStatus.ERROR, "reason": reason, "notes": task.notes}
        self._end(task, {"kind": "ended", "outcome": outcome})

    def _end(self, task: Task, event: Event) -> None:
        task.events.append(event | {"job": task.job})
        if task in self._queue:
            self._queue.remove(task)

    def _unserved(self) -> int:
        free = sum(
            not group.unfinished and (group.ready is None or not self._ends_now(group))
            for group in self._groups.values()
        )
        return max(0, len(self._queue) - free)

    async def _until(self, condition: Callable[[], Any]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
