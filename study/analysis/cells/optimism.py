"""How much the search flatters its winners: their losses there, and once trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.cells.base import CellSummary, Estimate
from study.analysis.cells.estimates import estimate


@dataclass(frozen=True)
class Optimism:
    """Winners of one arm at one dataset size that have confirm runs; all in nats.

    Attributes:
        arm, size: which cell.
        search: validation loss in the search, which picked them. It is the lowest of B, so luck
            is in it.
        confirm: validation loss of their confirm runs, on the same split.
        test: test loss of their confirm runs, on a split that picked nothing.
        gap: `confirm` - `search` per replicate: what was luck in the search.
        test_gap: `test` - `search` per replicate; how hard the two splits are is in it too.
    """

    arm: str
    size: int
    search: Estimate
    confirm: Estimate
    test: Estimate | None
    gap: Estimate
    test_gap: Estimate | None


def optimism(cells: Sequence[CellSummary]) -> tuple[Optimism, ...]:
    """Per cell with a confirmed winner, by ascending size, the arms of a size beside one
    another."""
    found = (_cell(cell) for cell in sorted(cells, key=lambda cell: cell.size))
    return tuple(gap for gap in found if gap is not None)


def _cell(cell: CellSummary) -> Optimism | None:
    known = [
        (replicate, found)
        for replicate in cell.replicates
        if (found := replicate.search_score) is not None and replicate.validation_losses
    ]
    search = estimate([found] for _, found in known)
    confirm = estimate(replicate.validation_losses for replicate, _ in known)
    gap = estimate(_minus(r.validation_losses, found) for r, found in known)
    if search is None or confirm is None or gap is None:
        return None
    return Optimism(
        arm=cell.arm,
        size=cell.size,
        search=search,
        confirm=confirm,
        test=estimate(replicate.test_losses for replicate, _ in known),
        gap=gap,
        test_gap=estimate(_minus(r.test_losses, found) for r, found in known),
    )


def _minus(losses: Sequence[float], search: float) -> tuple[float, ...]:
    return tuple(loss - search for loss in losses)
