"""Pure analysis of a study's results: numbers in, frozen numbers out; draws nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from study.analysis.base import (
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
from study.analysis.cost_records import CellCost, PrefixCacheSummary
from study.analysis.costs import (
    cell_cost,
    cold_device_seconds_of,
    device_seconds_of,
    peak_memory_of,
    spent_device_seconds_of,
    steps_done,
)
from study.analysis.curve import Curve
from study.analysis.estimates import (
    cell_losses,
    count_states,
    paired_difference,
    summarise_replicate,
)
from study.analysis.evidence import fit_curve
from study.analysis.findings import BASIS_PHRASES, caveats, crossover_sentence, found_sentences
from study.analysis.prefix_cache import summarise_prefix_cache
from study.records import BaseModelRecord, TrialRecord
from study.results import StudyResults

__all__ = [
    "BASIS_PHRASES",
    "CellCost",
    "CellSummary",
    "Curve",
    "Difference",
    "Estimate",
    "PrefixCacheSummary",
    "ReplicateSummary",
    "Split",
    "StateCounts",
    "StudySummary",
    "arm_label",
    "caveats",
    "cold_device_seconds_of",
    "counted",
    "crossover_sentence",
    "device_seconds_of",
    "found_sentences",
    "peak_memory_of",
    "score_of",
    "spent_device_seconds_of",
    "steps_done",
    "summarise",
    "summarise_prefix_cache",
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
    curve = fit_curve(cells, results.base.test_targets if results.base else ())
    return StudySummary(
        config=config,
        base=results.base,
        cells=cells,
        differences=_differences(cells, "test", curve),
        validation_differences=_differences(cells, "validation", None),
        counts=count_states(results.trials, config.confirm.seeds),
        unlearned=_unlearned(cells, results.base),
        prefix_cache=summarise_prefix_cache(results.trials),
        curve=curve,
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
        cost=cell_cost(trials, results.model_parameters),
    )


def _differences(
    cells: tuple[CellSummary, ...], split: Split, curve: Curve | None
) -> tuple[Difference, ...]:
    full = {c.size: c for c in cells if c.arm == "full"}
    lift = {c.size: c for c in cells if c.arm == "lift"}
    found = (paired_difference(full[n], lift[n], split) for n in sorted(full.keys() & lift.keys()))
    return tuple(replace(d, interval=_interval(d, curve)) for d in found if d is not None)


def _interval(difference: Difference, curve: Curve | None) -> tuple[float, float] | None:
    if curve is None:
        return None
    at = curve.at(difference.size)
    return float(at.low[0]), float(at.high[0])


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
