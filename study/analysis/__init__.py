"""Pure analysis of a study's results: numbers in, frozen numbers out; draws nothing."""

from __future__ import annotations

from collections import defaultdict

from study.analysis.base import (
    CellCost,
    CellSummary,
    Difference,
    Estimate,
    ReplicateSummary,
    Split,
    StateCounts,
    StudySummary,
    arm_label,
    counted,
    score_of,
)
from study.analysis.costs import cell_cost, device_seconds_of, peak_memory_of, steps_done
from study.analysis.estimates import (
    cell_losses,
    count_states,
    paired_difference,
    summarise_replicate,
)
from study.analysis.findings import BASIS_PHRASES, caveats, found_sentences
from study.records import BaseModelRecord, TrialRecord
from study.results import StudyResults

__all__ = [
    "BASIS_PHRASES",
    "CellCost",
    "CellSummary",
    "Difference",
    "Estimate",
    "ReplicateSummary",
    "Split",
    "StateCounts",
    "StudySummary",
    "arm_label",
    "caveats",
    "counted",
    "device_seconds_of",
    "found_sentences",
    "peak_memory_of",
    "score_of",
    "steps_done",
    "summarise",
]


def summarise(results: StudyResults) -> StudySummary:
    """Everything the report and the command line say in numbers, computed once."""
    config = results.config
    groups: dict[tuple[str, int], list[TrialRecord]] = defaultdict(list)
    for trial in results.trials:
        groups[trial.spec.arm, trial.spec.size].append(trial)
    sizes = sorted(set(config.dataset_sizes) | {size for _, size in groups})
    cells = tuple(
        _cell(arm, size, groups[arm, size], results) for arm in config.arms.names for size in sizes
    )
    return StudySummary(
        config=config,
        base=results.base,
        cells=cells,
        differences=_differences(cells, "test"),
        validation_differences=_differences(cells, "validation"),
        counts=count_states(results.trials, config.confirm.seeds),
        unlearned=_unlearned(cells, results.base),
    )


def _cell(arm: str, size: int, trials: list[TrialRecord], results: StudyResults) -> CellSummary:
    base = results.base
    by_replicate: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        by_replicate[trial.spec.replicate].append(trial)
    replicates = tuple(summarise_replicate(by_replicate[r], base) for r in sorted(by_replicate))
    validation, test, rise, metrics = cell_losses(replicates)
    return CellSummary(
        arm=arm,
        size=size,
        counts=count_states(trials, results.config.confirm.seeds),
        replicates=replicates,
        validation=validation,
        test=test,
        retention_rise=rise,
        metrics=metrics,
        cost=cell_cost(trials),
    )


def _differences(cells: tuple[CellSummary, ...], split: Split) -> tuple[Difference, ...]:
    full = {c.size: c for c in cells if c.arm == "full"}
    lift = {c.size: c for c in cells if c.arm == "lift"}
    found = (paired_difference(full[n], lift[n], split) for n in sorted(full.keys() & lift.keys()))
    return tuple(d for d in found if d is not None)


def _unlearned(
    cells: tuple[CellSummary, ...], base: BaseModelRecord | None
) -> tuple[tuple[str, int], ...]:
    if base is None:
        return ()
    return tuple(
        (c.arm, c.size)
        for c in cells
        if (c.test is not None and c.test.mean >= base.test_loss)
        or (
            c.test is None
            and c.validation is not None
            and c.validation.mean >= base.validation_loss
        )
    )
