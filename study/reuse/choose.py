"""Which configuration is an arm's best at a dataset size, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from study.analysis import CellSummary, ReplicateSummary, StudySummary, counted, score_of
from study.analysis.rules import REACH
from study.basics.errors import UserError
from study.protocol.records import TrialRecord
from study.protocol.results import StudyResults
from study.reuse.interpolate import Interpolation, interpolated


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        dataset_size: what it is for; may lie between tested sizes, or outside of them.
        cell: the tested one that it comes from.
        replicate: the replicate of `cell` whose trial it is.
        trial: the search trial with the configuration.
        other: of the neighbouring size, where it lies between two trials'; else None.
        other_cell: that of `other`.
        hyperparameters: of a run at `dataset_size`.
        interpolated: names of those that are neither trial's.
        rule: how it was picked, one sentence.
        notes: what else must be known, one sentence each.
    """

    dataset_size: int
    cell: CellSummary
    replicate: ReplicateSummary
    trial: TrialRecord
    hyperparameters: Mapping[str, Any]
    rule: str
    notes: tuple[str, ...] = ()
    other: TrialRecord | None = None
    other_cell: CellSummary | None = None
    interpolated: tuple[str, ...] = ()

    @property
    def is_tested(self) -> bool:
        """Whether the study has runs of it at `dataset_size`."""
        return self.cell.size == self.dataset_size

    @property
    def cells(self) -> tuple[CellSummary, ...]:
        """Those whose winners it was picked among, by ascending size."""
        found = [self.cell] if self.other_cell is None else [self.cell, self.other_cell]
        return tuple(sorted(found, key=lambda cell: cell.size))


def choose(
    results: StudyResults, summary: StudySummary, arm: str, dataset_size: int | None
) -> Choice:
    """See `study.reuse.best_configuration`.

    Raises:
        UserError: an arm that is not in the study, or one without any complete trial.
    """
    if arm not in summary.arms:
        known = ", ".join(summary.arms)
        raise UserError(
            f"Arm '{arm}' is not in study '{results.config.name}'. Use one of: {known}."
        )
    able = _able_sizes(summary, arm)
    asked = dataset_size or summary.config.decision.dataset_size
    if not able or (asked in summary.sizes and asked not in able):
        raise UserError(_nothing_complete(summary, arm, asked, able))
    asked = asked or able[-1]
    if asked in able:
        return _tested(summary.cell(arm, asked))
    below = max((n for n in able if n < asked), default=None)
    above = min((n for n in able if n > asked), default=None)
    if below is None or above is None:
        return _outside(summary, arm, asked, able)
    low, high = _tested(summary.cell(arm, below)), _tested(summary.cell(arm, above))
    found = interpolated(summary, arm, asked, low.replicate, high.replicate)
    return _between(asked, low, high, found)


def _able_sizes(summary: StudySummary, arm: str) -> list[int]:
    """Ascending, those with a complete search trial."""
    return [n for n in summary.sizes if any(r.leader for r in summary.cell(arm, n).replicates)]


def _nothing_complete(summary: StudySummary, arm: str, asked: int | None, able: list[int]) -> str:
    where = f" at {asked} examples" if asked in summary.sizes else ""
    remedy = "Run the study first, or look at failures with: study status."
    if able:
        remedy = f"Sizes with results: {', '.join(map(str, able))}."
    return f"No search trial of arm '{arm}'{where} is complete. {remedy}"


def _tested(cell: CellSummary) -> Choice:
    replicate, trial, rule = _pick_replicate(cell)
    return Choice(cell.size, cell, replicate, trial, trial.spec.hyperparameters, rule)


def _outside(summary: StudySummary, arm: str, asked: int, able: list[int]) -> Choice:
    """The nearest tested size's, for a size beyond the smallest or the largest."""
    near = able[0] if asked < able[0] else able[-1]
    end = "smallest" if asked < able[0] else "largest"
    said = (
        f"{asked:,} lies outside of the tested sizes; this is the best configuration at the "
        f"{end} one with results, {near:,}."
    )
    if not able[0] / REACH <= asked <= able[-1] * REACH:
        said += f" Nothing was tested near {asked:,}: treat it as a guess."
    return replace(_tested(summary.cell(arm, near)), dataset_size=asked, notes=(said,))


def _between(asked: int, low: Choice, high: Choice, found: Interpolation | str) -> Choice:
    if isinstance(found, str):
        near = min(low, high, key=lambda choice: abs(math.log(choice.cell.size / asked)))
        said = (
            f"{asked:,} was not tested; this is the best configuration at {near.cell.size:,}, the "
            f"nearest size that was. Nothing was interpolated: {found}"
        )
        return replace(near, dataset_size=asked, notes=(said,))
    main, other = (low, high) if found.main_is_lower else (high, low)
    moved = ", ".join(f"{name} {value}" for name, value in found.shown.items())
    rule = (
        f"Between the winners at {low.cell.size:,} and {high.cell.size:,}: {moved} by the trend of "
        f"the winners over the dataset size ({found.support}); the rest is the winner's at "
        f"{main.cell.size:,}."
    )
    notes = (
        f"{asked:,} was not tested, and neither was this configuration.",
        *(f"At {choice.cell.size:,}: {choice.rule}" for choice in (low, high)),
    )
    return replace(
        main,
        dataset_size=asked,
        hyperparameters=found.hyperparameters,
        rule=rule,
        notes=notes,
        other=other.trial,
        other_cell=other.cell,
        interpolated=tuple(found.shown),
    )


def _pick_replicate(cell: CellSummary) -> tuple[ReplicateSummary, TrialRecord, str]:
    """(replicate, its trial, the rule that picked it); the cell has at least one leader."""
    winners = sum(r.winner is not None for r in cell.replicates)
    best = cell.best
    if best is None or best.winner is None:
        led = [
            (score, r.replicate, r, r.leader)
            for r in cell.replicates
            if r.leader is not None and (score := score_of(r.leader)) is not None
        ]
        _, _, replicate, trial = min(led, key=lambda entry: entry[:2])
        rule = (
            "Picked as the lowest search validation loss so far: no search at this size has ended."
        )
        return replicate, trial, rule
    among = f"among {counted(winners, 'replicate winner')}"
    if best.confirm_score is not None:
        runs = counted(len(best.validation_losses), "confirm run")
        rule = f"Picked {among} by the lowest mean validation loss of its confirm runs ({runs})."
    else:
        rule = (
            f"Picked {among} by the lowest search validation loss, which flatters: no confirm run "
            "is complete."
        )
    return best, best.winner, rule
