"""Gates about the search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from study.protocol.search.gates import (
    Grade,
    bracket_gate,
    difficulty_gate,
    rate_range_gate,
    regret_gate,
)
from study.protocol.search.records import Chosen

FINE = Chosen(
    values={"learning_rate": 3e-5},
    tried=(2e-5, 4e-5),
    inside=True,
    outer_tenth=False,
    regret=0.1,
    curvature=15.0,
    noise=0.5,
    sizes={4000: 3e-5},
)


@pytest.mark.parametrize(
    ("gate", "full", "lift", "grade"),
    [
        (bracket_gate, {}, {}, Grade.PASS),
        (bracket_gate, {}, {"inside": False}, Grade.FAIL),
        (rate_range_gate, {}, {}, Grade.PASS),
        (rate_range_gate, {"outer_tenth": True}, {}, Grade.FAIL),
        (rate_range_gate, {"outer_tenth": True}, {"outer_tenth": True}, Grade.WARN),
        (regret_gate, {}, {}, Grade.PASS),
        (regret_gate, {}, {"regret": 0.6}, Grade.WARN),
        (regret_gate, {"regret": 1.1}, {}, Grade.FAIL),
        (difficulty_gate, {}, {"curvature": 44.0}, Grade.PASS),
        (difficulty_gate, {}, {"curvature": 46.0}, Grade.WARN),
        (difficulty_gate, {"curvature": 46.0}, {}, Grade.WARN),
    ],
)
def test_gates(gate, full, lift, grade) -> None:  # type: ignore[no-untyped-def]
    assert gate(replace(FINE, **full), replace(FINE, **lift)) is grade
