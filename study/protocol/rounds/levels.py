"""The shipped levels of each look, by the planned number of rounds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from study.protocol.rounds.boundary import ERROR, FIRST_LOOK, Floats, boundary_levels, error_spent

MOST_ROUNDS = 64
"""That can be planned, and that the table has."""
TABLE = Path(__file__).with_name("levels.json")
"""Written by `python -m tests.simulation.level_table`."""


def last_look(rounds: int) -> int:
    """The last round after which a study of so many planned rounds can be looked at."""
    return min(4 * rounds, max(96, 2 * rounds))


@cache
def levels_of(rounds: int, error: float = ERROR) -> Floats:
    """(last_look + 1,) one-sided level by the number of rounds looked at; NaN below `FIRST_LOOK`.

    Args:
        rounds: planned before the first of them, `FIRST_LOOK` to `MOST_ROUNDS`.
        error: of one end of the interval at all looks together. The table has `ERROR`; another
            one takes up to a second.

    Raises:
        ValueError: such a number of rounds cannot be planned, or the error is not in (0, 0.5).
    """
    if not FIRST_LOOK <= rounds <= MOST_ROUNDS:
        raise ValueError(f"{rounds} rounds: plan {FIRST_LOOK} to {MOST_ROUNDS}")
    if not 0.0 < error < 0.5:
        raise ValueError(f"an error of {error} is not between 0 and 0.5")
    if error == ERROR:
        found = np.array(_table()[str(rounds)])
    else:
        found = boundary_levels(rounds, last_look(rounds), error)
    levels = np.concatenate([np.full(FIRST_LOOK, np.nan), found])
    levels.setflags(write=False)
    return levels


def error_left(looked: int, rounds: int, error: float = ERROR) -> float:
    """Of one end, after the look at so many rounds. A new sequence, after searching again, may
    have half of it: then whatever number of sequences follow, all of them together keep to
    `error`."""
    return error - error_spent(looked, rounds, error)


@cache
def _table() -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(TABLE.read_text(encoding="utf-8"))["levels"]
    return found
