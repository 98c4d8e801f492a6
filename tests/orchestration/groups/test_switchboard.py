"""What becomes of tasks, whatever becomes of their groups. No Ray: an event loop and a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from study.orchestration.groups.switchboard import MAX_RETRIES, Switchboard
from tests.helpers.stores import measurement

Scenario = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A switchboard, a clock to move, and short words for what happens."""

    def __init__(self, reuse_workers: bool | str = True) -> None:
        self.now = 0.0
        self.board = Switchboard(reuse_workers, clock=lambda: self.now)
        self.taken: dict[str, int] = {}

    async def submit(self, *names: str, wants_verdicts: bool = False) -> None:
        for name in names:
            await self.board.submit(name, {"spec": name}, wants_verdicts)

    async def start(self, *groups: str) -> None:
        for group in groups:
            await self.board.group_started(group)

    async def take(self, group: str) -> dict[str, Any] | None:
        number = self.taken.get(group, 0)
        task = await asyncio.wait_for(self.board.next_task(group, number), 1)
        self.taken[group] = number + 1
        return task

    async def takes(self, group: str) -> dict[str, Any]:
        task = await self.take(group)
        assert task is not None
        return task

    async def finish(self, name: str, attempt: int = 1, status: str = "finished") -> None:
        await self.board.finished(name, attempt, {"status": status, "reason": "after step 1"})

    async def event(self, name: str, index: int = 0) -> dict[str, Any]:
        return await asyncio.wait_for(self.board.next_event(name, index), 1)

    async def outcome(self, name: str, index: int = 0) -> dict[str, Any]:
        event = await self.event(name, index)
        assert event["kind"] == "ended"
        return event["outcome"]


def play(scenario: Scenario, reuse_workers: bool | str = True) -> None:
    asyncio.run(scenario(Stage(reuse_workers)))  # type: ignore[arg-type]


async def is_waiting(action: Awaitable[Any]) -> bool:
    try:
        await asyncio.wait_for(action, 0.01)
    except TimeoutError:
        return True
    return False


def test_every_rank_of_a_group_gets_the_same_task_and_groups_get_different_ones() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two")
        await stage.start("a", "b")
        first, again = [await stage.board.next_task("a", 0) for _ in range(2)]
        other = await stage.board.next_task("b", 0)
        assert first == again and first is not None and other is not None
        assert (first["task_id"], other["task_id"]) == ("one", "two")

    play(scenario)


def test_a_group_waits_for_its_next_task() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.start("a")
        waiting = asyncio.create_task(stage.takes("a"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await stage.submit("one")
        assert (await waiting)["task_id"] == "one"

    play(scenario)


def test_a_rank_that_is_ahead_does_not_end_its_next_task() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two")
        await stage.start("a")
        await stage.takes("a")
        assert (await stage.takes("a"))["task_id"] == "two"  # rank 1 has left the first one
        await stage.finish("one")
        assert (await stage.outcome("one"))["status"] == "finished"
        assert await is_waiting(stage.event("two"))

    play(scenario)


def test_a_group_lost_between_two_tasks_loses_neither() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two", "three")
        await stage.start("a")
        await stage.takes("a")
        await stage.takes("a")
        assert (await stage.board.group_ended("a", "died"))["waiting"] == 3
        await stage.start("b")
        assert [(await stage.takes("b"))["task_id"] for _ in range(3)] == ["one", "two", "three"]

    play(scenario)


def test_events_come_in_order_and_name_their_run() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a")
        await stage.takes("a")
        assert await stage.board.measured("one", 1, measurement(3, 2.0))
        await stage.finish("one")
        first, last = await stage.event("one", 0), await stage.event("one", 1)
        assert first == {"kind": "measured", "measurement": measurement(3, 2.0), "job": "a"}
        assert last["outcome"]["status"] == "finished" and last["job"] == "a"

    play(scenario)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_task_that_wants_verdicts_waits_for_each(goes_on: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", wants_verdicts=True)
        await stage.start("a")
        await stage.takes("a")
        asked = asyncio.create_task(stage.board.measured("one", 1, measurement(3, 2.0)))
        await stage.event("one")
        assert not asked.done()
        await stage.board.decide("one", 3, goes_on)
        assert await asked is goes_on
        signal = stage.board.signalled("one", 1)
        if goes_on:
            assert await is_waiting(signal)
        else:
            assert await signal == "stop"

    play(scenario)


def test_a_task_whose_group_is_lost_goes_on_in_another_and_says_so() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a")
        await stage.takes("a")
        await stage.board.measured("one", 1, measurement(3, 2.0))
        ended = await stage.board.group_ended("a", "the worker died")
        assert ended == {"was_ready": True, "waiting": 1, "refused": ""}
        await stage.start("b")
        task = await stage.takes("b")
        assert (task["task_id"], task["attempt"]) == ("one", 2)
        # What the first attempt reported is no news; its late words do not count.
        assert await stage.board.measured("one", 2, measurement(3, 2.0))
        assert not await stage.board.measured("one", 1, measurement(4, 2.0))
        await stage.board.measured("one", 2, measurement(6, 2.0))
        await stage.finish("one", attempt=2)
        assert (await stage.event("one", 1))["measurement"] == measurement(6, 2.0)
        assert "the worker died" in (await stage.outcome("one", 2))["notes"][0]

    play(scenario)


def test_retries_are_counted_and_bounded() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        for attempt in range(1, MAX_RETRIES + 2):
            await stage.start(f"g{attempt}")
            assert (await stage.takes(f"g{attempt}"))["attempt"] == attempt
            await stage.board.group_ended(f"g{attempt}", "boom")
        outcome = await stage.outcome("one")
        assert outcome["status"] == "error"
        assert outcome["reason"] == f"boom (tried {MAX_RETRIES + 1} times)"
        assert len(outcome["notes"]) == MAX_RETRIES
        assert await stage.board.unserved() == 0

    play(scenario)


def test_nodes_that_leave_are_not_held_against_a_trial() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        for attempt in range(1, MAX_RETRIES + 5):
            await stage.start(f"g{attempt}")
            assert (await stage.takes(f"g{attempt}"))["attempt"] == attempt
            await stage.board.group_ended(f"g{attempt}", "node died", node_lost=True)
        await stage.start("last")
        attempt = (await stage.takes("last"))["attempt"]
        await stage.finish("one", attempt=attempt)
        assert (await stage.outcome("one"))["status"] == "finished"

    play(scenario)


def test_a_group_that_refuses_the_study_says_why_and_its_trial_has_not_failed() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.start("g")
        await stage.submit("a")
        await stage.board.refused("g", "other data")
        ended = await stage.board.group_ended("g", "DataError: other data")
        assert ended == {"was_ready": False, "waiting": 1, "refused": "other data"}
        await stage.board.interrupt()
        assert (await stage.event("a"))["kind"] == "interrupted"

    play(scenario)


def test_what_would_happen_again_is_not_tried_again() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a")
        await stage.takes("a")
        await stage.board.failed("one", 1, "error", "connection closed by peer")
        await stage.board.failed("one", 1, "fatal", "3 frozen parameters moved")
        await stage.board.failed("one", 1, "error", "connection closed by peer")
        await stage.board.group_ended("a", "some wrapping")
        assert (await stage.outcome("one"))["reason"] == "3 frozen parameters moved"

    play(scenario)


def test_out_of_memory_halves_the_micro_batch_down_to_one_example() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        sizes = []
        for attempt, size in enumerate((4, 2, 1), start=1):
            await stage.start(f"g{attempt}")
            sizes.append((await stage.takes(f"g{attempt}"))["micro_batch_size"])
            await stage.board.failed("one", attempt, "out_of_memory", "CUDA", size)
            await stage.board.group_ended(f"g{attempt}", "")
        assert sizes == [None, 2, 1]
        outcome = await stage.outcome("one")
        assert outcome["reason"].startswith("Out of memory even with one example")
        assert ["halved to 2" in n or "halved to 1" in n for n in outcome["notes"]] == [True, True]

    play(scenario)


def test_a_pause_ends_every_task_and_every_group_and_nothing_starts() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("running", "queued")
        await stage.start("a", "idle")
        await stage.takes("a")
        wish = asyncio.create_task(stage.board.signalled("running", 1))
        await asyncio.sleep(0)
        await stage.board.interrupt()
        assert await wish == "pause"
        assert (await stage.event("queued"))["kind"] == "interrupted"
        assert await stage.take("idle") is None
        await stage.finish("running", status="interrupted")
        assert (await stage.event("running"))["kind"] == "interrupted"
        assert await stage.take("a") is None
        await stage.submit("late")
        assert (await stage.event("late"))["kind"] == "interrupted"

    play(scenario)


def test_a_group_lost_during_a_pause_leaves_its_task_paused() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a")
        await stage.takes("a")
        await stage.board.interrupt()
        assert (await stage.board.group_ended("a", "killed"))["waiting"] == 0
        assert (await stage.event("one"))["kind"] == "interrupted"

    play(scenario)


def test_a_group_whose_machine_is_taken_away_hands_its_task_on() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a", "b")
        await stage.takes("a")
        await stage.board.retire("a")
        await stage.finish("one", status="interrupted")
        assert await stage.take("a") is None
        task = await stage.takes("b")
        assert (task["task_id"], task["attempt"]) == ("one", 2)
        await stage.finish("one")  # too late
        assert (await stage.board.group_ended("a", ""))["waiting"] == 0
        await stage.finish("one", attempt=2)
        assert (await stage.outcome("one"))["status"] == "finished"

    play(scenario)


def test_a_stopped_task_is_left_by_its_workers_and_its_group_goes_on() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two")
        await stage.start("a")
        await stage.takes("a")
        await stage.board.stop("one")
        assert await stage.board.signalled("one", 1) == "stop"
        assert not await stage.board.measured("one", 1, measurement(3, 2.0))
        await stage.finish("one", status="stopped")
        assert (await stage.takes("a"))["task_id"] == "two"

    play(scenario)


def test_a_stopped_task_that_waits_never_starts() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.board.stop("one")
        assert (await stage.outcome("one"))["status"] == "stopped"
        await stage.start("a")
        assert await is_waiting(stage.take("a"))

    play(scenario)


def test_submitted_again_a_task_runs_on_and_tells_everything_from_the_start() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a", "b")
        await stage.takes("a")
        await stage.board.measured("one", 1, measurement(3, 2.0))
        await stage.submit("one")
        assert await is_waiting(stage.take("b"))
        assert (await stage.event("one", 0))["measurement"] == measurement(3, 2.0)
        await stage.finish("one")
        assert (await stage.outcome("one", 1))["status"] == "finished"

    play(scenario)


@pytest.mark.parametrize(
    ("reuse_workers", "startup", "took", "goes_on"),
    [
        (True, 1.0, 1000.0, True),
        (False, 1000.0, 1.0, False),
        ("auto", 10.0, 199.0, True),
        ("auto", 10.0, 201.0, False),
    ],
)
def test_a_group_goes_on_where_starting_another_would_cost_too_much(
    reuse_workers: bool | str, startup: float, took: float, goes_on: bool
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two")
        await stage.start("a")
        stage.now += startup
        await stage.takes("a")
        stage.now += took
        await stage.finish("one")
        assert await stage.board.unserved() == (0 if goes_on else 1)
        assert (await stage.take("a") is not None) == goes_on

    play(scenario, reuse_workers)


def test_groups_on_their_way_are_counted_as_free() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two", "three")
        assert await stage.board.unserved() == 3
        await stage.start("a", "b")
        assert await stage.board.unserved() == 1
        ended = await stage.board.group_ended("b", "no room")
        assert (ended["was_ready"], ended["waiting"]) == (False, 2)

    play(scenario)


def test_what_was_booked_is_forgotten_after_a_while() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.start("a")
        for number in range(200):
            await stage.submit(f"t{number}")
            await stage.takes("a")
            await stage.finish(f"t{number}")
            await stage.board.forget(f"t{number}")
        assert len(stage.board._tasks) < 100

    play(scenario)


def test_closing_ends_idle_groups() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.start("a")
        idle = asyncio.create_task(stage.take("a"))
        await asyncio.sleep(0)
        await stage.board.close()
        assert await idle is None

    play(scenario)


def test_a_groups_end_that_is_told_twice_counts_once() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one")
        await stage.start("a", "b")
        await stage.takes("a")
        ended = await stage.board.group_ended("a", "died")
        await stage.takes("b")
        assert await stage.board.group_ended("a", "died") == ended | {"waiting": 0}
        await stage.finish("one", attempt=2)
        assert (await stage.outcome("one"))["notes"] == ["Went on in another worker group: died"]

    play(scenario)


def test_a_group_whose_task_cannot_be_handed_on_keeps_it_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two")
        await stage.start("a", "b")
        await stage.takes("a")
        await stage.takes("a")
        after_loss, calls = stage.board._after_loss, 0

        def once(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise RuntimeError
            after_loss(*arguments)

        monkeypatch.setattr(stage.board, "_after_loss", once)
        with pytest.raises(RuntimeError):
            await stage.board.group_ended("a", "died")
        await stage.board.group_ended("a", "died")
        assert [(await stage.takes("b"))["task_id"] for _ in range(2)] == ["one", "two"]

    play(scenario)


def test_a_group_keeps_every_task_that_has_not_ended() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.submit("one", "two", "three", "four")
        await stage.start("a", "b")
        for _ in range(4):
            await stage.takes("a")
        await stage.board.group_ended("a", "died")
        assert [(await stage.takes("b"))["task_id"] for _ in range(4)] == [
            "one", "two", "three", "four",
        ]  # fmt: skip

    play(scenario)
