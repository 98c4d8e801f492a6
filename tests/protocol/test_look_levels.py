"""Levels of looks against the protocol's Monte Carlo figures, and against a Monte Carlo here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from study.protocol.rounds.boundary import ERROR, FIRST_LOOK, boundary_levels, error_spent
from study.protocol.rounds.levels import MOST_ROUNDS, error_left, last_look, levels_of
from tests.simulation.level_table import table

PAGE = {
    3: 3.2, 4: 2.5, 5: 3.0, 6: 3.6, 7: 4.6, 8: 5.5, 9: 6.6, 10: 7.9, 11: 9.2, 12: 10.6, 13: 12.2,
    14: 13.4, 15: 15.2, 16: 17.0, 17: 11.5, 18: 9.0, 20: 6.6, 24: 4.5, 32: 2.7, 48: 1.5,
}  # fmt: skip
"""For 16 planned rounds, in thousandths, found by Monte Carlo and so with an error of its own."""
PATHS = 200_000


def crossed(levels: np.ndarray, looks: list[int]) -> list[float]:
    """Shares of sequences of mean 0 whose t statistic was ever beyond its level, by look."""
    random = np.random.default_rng(3)
    total, squares = np.zeros(PATHS), np.zeros(PATHS)
    ever = np.zeros(PATHS, dtype=bool)
    found = []
    for k in range(1, max(looks) + 1):
        drawn = random.standard_normal(PATHS)
        total, squares = total + drawn, squares + drawn**2
        if k >= FIRST_LOOK:
            mean = total / k
            sd = np.sqrt((squares - k * mean**2) / (k - 1))
            ever |= mean / sd * math.sqrt(k) > special.stdtrit(k - 1, 1 - levels[k])
        if k in looks:
            found.append(float(ever.mean()))
    return found


@pytest.mark.parametrize("k", PAGE)
def test_the_levels_for_16_rounds_are_those_of_the_protocol(k: int) -> None:
    assert 1000 * levels_of(16)[k] == pytest.approx(PAGE[k], rel=0.05)


@pytest.mark.parametrize("rounds", [3, 16])
def test_the_shipped_table_is_what_its_script_makes(rounds: int) -> None:
    made = table([rounds])[str(rounds)]
    assert levels_of(rounds)[FIRST_LOOK:] == pytest.approx(made, rel=1e-4)
    assert len(made) == last_look(rounds) - FIRST_LOOK + 1


@pytest.mark.parametrize(("rounds", "error"), [(8, ERROR), (24, ERROR), (8, 0.02)])
def test_sequences_cross_as_often_as_the_error_that_was_spent(rounds: int, error: float) -> None:
    looks = [rounds // 2, rounds, rounds + 4]
    wanted = [error_spent(k, rounds, error) for k in looks]
    for found, share in zip(crossed(levels_of(rounds, error), looks), wanted, strict=True):
        assert abs(found - share) < 4 * math.sqrt(share / PATHS) + 0.01 * share


def test_all_the_error_is_never_spent() -> None:
    for rounds in (3, 16, MOST_ROUNDS):
        assert error_spent(rounds, rounds) == pytest.approx(0.04)
        assert error_spent(last_look(rounds), rounds) < ERROR
        assert error_left(last_look(rounds), rounds) > 0


def test_searching_again_and_again_at_half_of_what_is_left_keeps_to_the_error() -> None:
    spent, error = 0.0, ERROR
    for _ in range(20):
        used = error_spent(16, 16, error)
        spent, error = spent + used, error_left(16, 16, error) / 2
    assert spent + error < ERROR


def test_less_error_makes_every_level_smaller() -> None:
    usual, half = levels_of(8)[FIRST_LOOK:], levels_of(8, ERROR / 2)[FIRST_LOOK:]
    assert (half < usual).all()
    assert half[0] == pytest.approx(usual[0] / 2, rel=1e-3)


@pytest.mark.parametrize("rounds", [2, MOST_ROUNDS + 1])
def test_rounds_that_no_table_has_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="plan 3 to 64"):
        levels_of(rounds)


def test_the_first_level_is_exact() -> None:
    assert boundary_levels(16, 3)[0] == error_spent(3, 16)
