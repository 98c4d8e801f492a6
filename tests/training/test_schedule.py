from __future__ import annotations

from math import cos, pi

import pytest

from study.strategies.base import Phase
from study.training.schedule import learning_rate

ONE = (Phase("all", ("a",), 10),)
THREE = (
    Phase("1", ("a",), 4),
    Phase("2", ("b",), 3, learning_rate_factors=(0.5,), rewarmup_steps=2),
    Phase("3", ("c",), 3, learning_rate_factors=(0.25,)),
)


def rates(schedule: str, warmup_ratio: float, phases: tuple[Phase, ...]) -> list[float]:
    return [learning_rate(s, 10, 2.0, warmup_ratio, schedule, phases) for s in range(10)]


def test_linear_matches_numbers_by_hand() -> None:
    expected = [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25]
    assert rates("linear", 0.2, ONE) == pytest.approx(expected, abs=1e-12)


def test_cosine_matches_numbers_by_hand() -> None:
    expected = [1.0, 2.0] + [1 + cos(pi * i / 8) for i in range(8)]
    assert rates("cosine", 0.2, ONE) == pytest.approx(expected, abs=1e-12)
    assert rates("cosine", 0.2, ONE)[6] == pytest.approx(1.0)  # half of the way down


def test_constant_stays_at_the_peak_after_the_warmup() -> None:
    assert rates("constant", 0.5, ONE) == pytest.approx([0.4, 0.8, 1.2, 1.6] + [2.0] * 6)


def test_without_warmup_the_first_step_is_at_the_peak() -> None:
    assert rates("constant", 0.0, ONE) == [2.0] * 10


def test_rewarmup_multiplies_the_envelope_and_factors_are_left_to_the_parameters() -> None:
    # Phase 2 ramps 1/2, 1; phase 3 has no ramp.
    expected = [2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rates("constant", 0.0, THREE) == pytest.approx(expected)


def test_decay_goes_on_over_phases() -> None:
    assert rates("linear", 0.0, THREE)[7] == pytest.approx(2.0 * 0.3)


def test_no_step_is_lost_at_rate_zero() -> None:
    for schedule in ("linear", "cosine", "constant"):
        assert min(rates(schedule, 0.3, THREE)) > 0


def test_a_step_outside_the_trial_is_refused() -> None:
    with pytest.raises(ValueError, match="step 10 lies outside the trial's 10 steps"):
        learning_rate(10, 10, 1.0, 0.1, "cosine", ONE)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="cosine, linear or constant"):
        learning_rate(5, 10, 1.0, 0.1, "step", ONE)
