"""How much is searched: the steps of one arm's search, their sizes and their cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ENOUGH = 100
"""Examples below which a size says too little of the asked one to start with."""
_FRACTIONS = (16, 8, 4, 2, 1)
_MOST_BEYOND = 3


@dataclass(frozen=True)
class Effort:
    """Of one arm; equal in both.

    Attributes:
        first: S1's points at the smallest size, and at the next one.
        spread: S2's points.
        ladder: S3: a bracket at the asked size divided by each of these, as far as that is larger
            than where the search starts. One at a quarter as well costs 0.5 eq. and changes no
            simulated regret by more than chance does.
        brackets: S4's at the asked size, the second one on another subset.
    """

    first: tuple[int, int] = (6, 4)
    spread: int = 6
    ladder: tuple[int, ...] = (2,)
    brackets: int = 2


FRUGAL = Effort(spread=0, brackets=1)


@dataclass(frozen=True)
class Step:
    """Trials that run at once.

    Attributes:
        kind: what its points are.
        sizes: of each of its trials.
        subset: number of the data subset.
        repeats: those that diverge run once more.
    """

    name: str
    kind: Literal["first", "spread", "bracket", "beyond"]
    sizes: tuple[int, ...]
    subset: int = 0
    repeats: bool = True

    @property
    def size(self) -> int:
        """Of all its trials, where it has one."""
        return self.sizes[0]


def ladder_of(asked: int) -> tuple[int, ...]:
    """Sizes of a search, ascending to the asked one: from a sixteenth of it, or an eighth or a
    quarter where that would be fewer than `ENOUGH` examples."""
    start = next((f for f in (16, 8) if asked / f >= ENOUGH), 4)
    fractions = [f for f in _FRACTIONS if f <= start]
    return tuple(sorted({max(round(asked / f), min(2, asked)) for f in fractions}))


def steps_of(asked: int, effort: Effort) -> tuple[Step, ...]:
    """In their order; the last ones, beyond the bracket, only happen where they are needed."""
    ladder = ladder_of(asked)
    low, next_up = ladder[0], ladder[min(1, len(ladder) - 1)]
    first = (low,) * effort.first[0] + (next_up,) * effort.first[1]
    steps = [Step("S1", "first", first, repeats=False)]
    if effort.spread:
        steps.append(Step("S2", "spread", (low,) * effort.spread, repeats=False))
    middle = [round(asked / f) for f in effort.ladder if low < round(asked / f) < asked]
    steps += [Step(f"S3.{i}", "bracket", (n, n)) for i, n in enumerate(middle, 1)]
    steps += [
        Step(f"S4.{i + 1}", "bracket", (asked, asked), subset=min(i, 1))
        for i in range(effort.brackets)
    ]
    last = steps[-1].subset
    steps += [Step(f"S5.{i}", "beyond", (asked,), subset=last) for i in range(1, _MOST_BEYOND + 1)]
    return tuple(steps)


def search_cost(asked: int, effort: Effort, beyond: float = 0.0) -> float:
    """In runs at the asked size, of one arm.

    Args:
        beyond: runs beyond the bracket that are expected; at most 3.
    """
    sizes = [n for s in steps_of(asked, effort) if s.kind != "beyond" for n in s.sizes]
    return sum(sizes) / asked + beyond
