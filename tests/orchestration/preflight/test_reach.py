"""Gloo meetings of two real processes; `test_namespaces` has hosts that do not reach each other."""

from __future__ import annotations

import multiprocessing

from study.orchestration.preflight.reach import MEET_SECONDS, meet
from tests.helpers.ray_head import free_port


def both(interface: str | None) -> list[str]:
    """What the two sides say."""
    port = free_port()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sides = [
            pool.apply_async(meet, (rank, "127.0.0.1", port, "127.0.0.1", interface, MEET_SECONDS))
            for rank in range(2)
        ]
        return [side.get(timeout=120) for side in sides]


def test_two_processes_that_reach_each_other_have_nothing_to_tell() -> None:
    assert both(None) == ["", ""]


def test_an_interface_that_the_host_lacks_is_what_they_tell() -> None:
    first, second = both("eth77")
    assert "has no interface eth77" in first and "has no interface eth77" in second
    assert "(127.0.0.1, eth77)" in first
