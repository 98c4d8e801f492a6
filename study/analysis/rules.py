"""The numbers that decide, and the arms that are compared."""

from __future__ import annotations

from typing import Literal

Arm = Literal["full", "lift"]
ARMS: tuple[Arm, Arm] = ("full", "lift")

SURE, LEANING = 0.95, 0.80
"""Probabilities from which the decision rule claims, and leans."""
CHEAPER = 0.9
"""Cost ratio up to which an arm that is not worse is recommended for it."""
MAX_CONFIDENCE = 0.99
"""No study of this kind excludes what it did not vary, so more is never claimed."""

FEWEST_SIZES, SMALLEST_SPAN = 4, 8
FEWEST_REPLICATES, FEWEST_PAIRS = 3, 6
REACH = 1.5
"""An asked size may lie outside of the tested ones by this factor."""

ENOUGH = 0.80
"""Power that a study should have at 2 rho."""
SPLIT_LIMIT = 0.25
"""In units of rho: the test split's error should not be above."""
