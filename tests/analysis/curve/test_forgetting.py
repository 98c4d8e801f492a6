"""Forgetting as measured, and at equal task loss."""

from __future__ import annotations

import math

import pytest

from study.analysis import decide
from study.analysis.summary import gather_evidence
from study.protocol.results import StudyResults
from tests.analysis.comparisons import SIZES, compare

SLOPE = -0.5
"""Nats of forgetting per nat of task loss: who learns more forgets more."""


def learned(arm: str, size: int) -> float:
    """LIFT's losses at a size are full's at one and a half times as many examples."""
    return 4.4 - 0.1 * math.log2(size / 100 * (1.5 if arm == "lift" else 1.0))


def on_one_line(extra: float) -> StudyResults:
    """Both arms forget by what they learned; full forgets `extra` nats on top."""

    def retention(arm: str, size: int) -> float:
        return 3.0 + SLOPE * (learned(arm, size) - 4.63) + (extra if arm == "full" else 0.0)

    return compare(learned, retention=retention, noise=1e-4)


def test_less_learning_is_not_less_forgetting() -> None:
    """On one line LIFT, which learned more, forgets more; at equal task loss the arms are alike."""
    evidence = gather_evidence(on_one_line(0.0))
    found = decide(evidence, 400).retention
    assert found is not None and found.matched is not None
    assert found.difference.value == pytest.approx(SLOPE * 0.1 * math.log2(1.5), abs=1e-3)
    assert found.forgets["lift"] > 0.99
    assert found.matched.value == pytest.approx(0.0, abs=1e-3)


def test_forgetting_has_a_difference_that_matters_of_its_own() -> None:
    """Full forgets 0.1 nats more: beyond the one rho, and far within the other."""
    for rho, sure in ((0.05, True), (0.5, False)):
        results = compare(
            lambda arm, size: 4.0,
            retention=lambda arm, size: 3.2 + (0.1 if arm == "full" else 0.0),
            decision={"rho": 0.01, "retention_rho": rho},
        )
        found = decide(gather_evidence(results), 400).retention
        assert found is not None and found.rho == rho
        assert (found.forgets["full"] > 0.99) is sure


def test_what_is_left_at_equal_task_loss_is_told() -> None:
    found = decide(gather_evidence(on_one_line(0.2)), 400).retention
    assert found is not None and found.matched is not None
    assert found.matched.value == pytest.approx(0.2, abs=1e-3)
    assert found.matched.low is not None and found.matched.low > 0.19


def test_the_slopes_error_widens_the_matched_interval() -> None:
    """Where the arms' task losses differ much and the slope is poorly known."""

    def retention(arm: str, size: int) -> float:
        wobble = 0.02 if SIZES.index(size) % 2 else -0.02
        return 3.2 + wobble + (0.1 if arm == "full" else 0.0)

    results = compare(learned, retention=retention, noise=1e-4)
    found = decide(gather_evidence(results), 400).retention
    assert found is not None and found.matched is not None
    assert found.matched.low is not None and found.difference.low is not None
    matched = found.matched.value - found.matched.low
    assert matched > 3 * (found.difference.value - found.difference.low)


def test_arms_whose_task_losses_do_not_overlap_cannot_be_matched() -> None:
    results = compare(lambda arm, size: 4.0 if arm == "full" else 3.0)
    found = decide(gather_evidence(results), 400).retention
    assert found is not None and found.matched is None


def test_forgetting_that_was_not_measured() -> None:
    results = compare(learned, retention=lambda arm, size: None)
    assert decide(gather_evidence(results), 400).retention is None
