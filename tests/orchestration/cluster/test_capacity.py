"""How many trials may run, as nodes come and go; `test_several_nodes` has real ones."""

from __future__ import annotations

from typing import Any

import pytest

from study.basics.errors import ResourceError
from study.config.load import ResourcesConfig
from study.orchestration.cluster.autoscaler import Demand
from study.orchestration.cluster.capacity import LOOK_SECONDS, Capacity
from study.orchestration.cluster.workers import Workers

NODE = {"CPU": 4.0}
PAIR = Workers(2, 2, 0)
"""One per node."""


class World:
    """Nodes and a clock that the test moves."""

    def __init__(self, nodes: int, **resources: Any) -> None:
        self.nodes, self.now, self.told = [NODE] * nodes, 0.0, list[str]()
        self.looks = 0
        self.capacity = Capacity(
            PAIR,
            ResourcesConfig(**resources),
            self.told.append,
            nodes=self._look,
            clock=lambda: self.now,
        )

    def _look(self) -> list[dict[str, float]]:
        self.looks += 1
        return self.nodes

    def after(self, seconds: float, nodes: int) -> int:
        self.now, self.nodes = self.now + seconds, [NODE] * nodes
        return self.capacity.look()


def test_auto_follows_the_nodes_and_says_so() -> None:
    world = World(2)
    assert world.capacity.trials == 2
    assert [world.after(5, n) for n in (3, 3, 1, 5)] == [3, 3, 1, 5]
    assert world.told == [
        "A node joined; 3 trials run at once",
        "Nodes left; 1 trial runs at once",
        "Nodes joined; 5 trials run at once",
    ]


def test_a_number_is_never_exceeded_and_what_changes_nothing_is_not_told() -> None:
    world = World(3, concurrent_trials=2)
    assert [world.after(5, n) for n in (9, 2, 1, 3)] == [2, 2, 1, 2]
    assert world.told == [
        "A node left; 1 trial runs at once",
        "Nodes joined; 2 trials run at once",
    ]


def test_ray_is_asked_every_two_seconds_at_most() -> None:
    world = World(1)
    for _ in range(100):
        world.after(LOOK_SECONDS / 50, 1)
    assert world.looks <= 1 + 2


def test_without_room_it_waits_and_goes_on_when_a_node_comes_back() -> None:
    world = World(1, wait_for_nodes_minutes=10)
    assert world.after(5, 0) == 0
    assert world.told[-1] == (
        "A node left, and not one trial fits on the others. Waiting for nodes for 10 min 0 s; "
        "trials go on from their checkpoints"
    )
    assert world.after(599, 0) == 0 and not world.capacity.missed
    assert world.after(5, 1) == 1 and not world.capacity.missed
    assert world.told[-1] == "Going on: a node joined; 1 trial runs at once"
    # A later loss has a wait of its own.
    world.after(5, 0)
    world.after(500, 0)
    assert not world.capacity.missed


def test_it_has_waited_long_enough_when_no_node_comes() -> None:
    world = World(1, wait_for_nodes_minutes=10)
    world.after(5, 0)
    world.after(601, 0)
    assert world.capacity.missed == (
        "No node came within 10 min 0 s on which a trial could run (a trial needs 2 workers with "
        "2 CPUs and 0 GPUs each; the cluster's nodes have nothing, room for 0)."
    )
    assert len(world.told) == 1


def test_what_does_not_fit_at_the_start_is_refused_at_once() -> None:
    with pytest.raises(ResourceError, match="a trial needs 2 workers"):
        World(0)


def test_nodes_that_left_are_counted_and_a_look_can_be_had_at_once() -> None:
    world = World(3)
    for nodes in (1, 4, 3):
        world.after(5, nodes)
    world.nodes = [NODE] * 2
    assert world.capacity.look() == 3 and world.capacity.look(at_once=True) == 2
    assert world.capacity.nodes_left == 2 + 1 + 1


class Autoscaler:
    """A `Demand` that can fail."""

    def __init__(self) -> None:
        self.fails, self.shown = False, list[int]()

    def show(self, workers: Workers, trials: int) -> None:
        if self.fails:
            raise ConnectionError
        self.shown.append(trials)


@pytest.mark.parametrize("who", ["told", "autoscaler"])
def test_what_a_look_has_found_is_kept_if_telling_of_it_fails(who: str) -> None:
    world, autoscaler = World(3), Autoscaler()
    world.capacity._demand = autoscaler  # type: ignore[assignment]

    def fail(_: str) -> None:
        raise BrokenPipeError

    if who == "told":
        world.capacity._tell = fail
    autoscaler.fails = who == "autoscaler"
    with pytest.raises(OSError):
        world.after(5, 1)
    assert (world.capacity.trials, world.capacity.nodes_left) == (1, 2)
    autoscaler.fails, world.capacity.backlog = False, 4
    assert world.after(5, 1) == 1 and world.capacity.nodes_left == 2
    assert autoscaler.shown[-1] == 3


def test_what_was_shown_to_the_autoscaler_is_known_though_showing_more_of_it_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pending placement group that nobody knows of any more would keep machines for nobody."""
    alive, left = set[int](), 3

    class Pending:
        def __init__(self, *_: Any, **__: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionError
            alive.add(id(self))

        def wait(self, seconds: float) -> bool:
            return False

    def remove(group: Pending) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError
        alive.remove(id(group))

    monkeypatch.setattr("ray.util.placement_group", Pending)
    monkeypatch.setattr("ray.util.remove_placement_group", remove)
    demand = Demand()
    with pytest.raises(ConnectionError):
        demand.show(PAIR, 5)
    assert len(alive) == 3
    left = 1
    with pytest.raises(ConnectionError):
        demand.show(PAIR, 1)
    assert len(alive) == 2
    left = 9
    demand.show(PAIR, 0)
    assert not alive
