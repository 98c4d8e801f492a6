"""Pure analysis of a study's results: numbers in, frozen numbers out; draws nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
from study.analysis.best_of_k import best_of_k
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
    cell_metrics,
    count_states,
    paired_difference,
    summarise_replicate,
)
from study.analysis.evidence import Evidence, evidence_of
from study.analysis.findings import BASIS_PHRASES, caveats, crossover_sentence, found_sentences
from study.analysis.gates import REACH, plan_gates
from study.analysis.memory import least_gib, ran_out
from study.analysis.prefix_cache import summarise_prefix_cache
from study.analysis.ranking import Ranking, rankings
from study.analysis.verdict import decide
from study.analysis.verdict_records import (
    Gate,
    Interval,
    NextRuns,
    Retention,
    Verdict,
)
from study.records import BaseModelRecord, TrialRecord
from study.results import StudyResults

__all__ = [
    "BASIS_PHRASES",
    "CellCost",
    "CellSummary",
    "Curve",
    "Difference",
    "Estimate",
    "Evidence",
    "Gate",
    "Interval",
    "NextRuns",
    "PrefixCacheSummary",
    "Ranking",
    "ReplicateSummary",
    "Retention",
    "Split",
    "StateCounts",
    "StudySummary",
    "Verdict",
    "arm_label",
    "caveats",
    "cold_device_seconds_of",
    "counted",
    "crossover_sentence",
    "decide",
    "device_seconds_of",
    "found_sentences",
    "gather_evidence",
    "peak_memory_of",
    "plan_gates",
    "score_of",
    "spent_device_seconds_of",
    "steps_done",
    "summarise",
    "summarise_prefix_cache",
    "verdict_of",
]


_GRID = 61


def summarise(
    results: StudyResults,
    dataset_sizes: Sequence[int] = (),
    memory_limit_gib: float | None = None,
    *,
    with_grid: bool = True,
) -> StudySummary:
    """Everything the report and the command line say in numbers, computed once.

    Args:
        dataset_sizes: what a verdict is asked for; empty: the study file's size, else the largest.
        memory_limit_gib: of one device; None: the study file's.
        with_grid: whether sizes will be looked up in the summary later.

    Raises:
        ValueError: one of them is not positive.
    """
    config = results.config
    cells = _cells(results)
    evidence = _evidence(results, cells)
    asked = dataset_sizes or (config.decision.dataset_size or config.dataset_sizes[-1],)
    verdicts = [verdict_of(evidence, size, memory_limit_gib) for size in asked]
    return StudySummary(
        config=config,
        base=results.base,
        cells=cells,
        differences=_differences(cells, "test", evidence.curve),
        validation_differences=_differences(cells, "validation", None),
        counts=count_states(results.trials, config.confirm.seeds),
        unlearned=_unlearned(cells, results.base),
        prefix_cache=summarise_prefix_cache(results.trials),
        curve=evidence.curve,
        verdicts=tuple(verdict for verdict in verdicts if verdict is not None),
        grid=tuple(
            decide(evidence, size, memory_limit_gib, with_next_runs=False)
            for size in (_grid_sizes(evidence) if with_grid else ())
        ),
        rankings=() if config.compares else rankings(results, cells),
    )


def verdict_of(
    evidence: Evidence, dataset_size: int, memory_limit_gib: float | None = None
) -> Verdict | None:
    """`decide`; None for a study that compares nothing, unless memory decides: the other arm may be
    the one that could not run."""
    found = decide(evidence, dataset_size, memory_limit_gib)
    return found if evidence.config.compares or found.answer == "memory" else None


def gather_evidence(results: StudyResults) -> Evidence:
    """What `decide` reads, without the rest of a summary."""
    return _evidence(results, _cells(results))


def _evidence(results: StudyResults, cells: Sequence[CellSummary]) -> Evidence:
    return replace(
        evidence_of(results.config, cells, results.base, best_of_k(results)),
        least_gib=least_gib(results.config, results.model_parameters),
        ran_out=ran_out(results.trials),
    )


def _cells(results: StudyResults) -> tuple[CellSummary, ...]:
    groups: dict[tuple[str, int], list[TrialRecord]] = defaultdict(list)
    for trial in results.trials:
        groups[trial.spec.arm, trial.spec.size].append(trial)
    sizes = sorted(set(results.config.dataset_sizes) | {size for _, size in groups})
    return tuple(
        _cell(arm, size, groups[arm, size], results)
        for arm in results.config.arms.names
        for size in sizes
    )


def _grid_sizes(evidence: Evidence) -> tuple[int, ...]:
    """Sizes at which a typed one is looked up, evenly spaced by ratio as far as a verdict reaches;
    none without a curve over several sizes."""
    tested = {point.size for point in evidence.points}
    if evidence.curve is None or len(tested) < 2:
        return ()
    ends = min(tested) / REACH, max(tested) * REACH
    spread = np.geomspace(*ends, _GRID).round().astype(int).tolist()
    inside = {size for size in spread if ends[0] <= size <= ends[1]}
    return tuple(sorted(tested | inside))


def _cell(arm: str, size: int, trials: list[TrialRecord], results: StudyResults) -> CellSummary:
    base = results.base
    by_replicate: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        by_replicate[trial.spec.replicate].append(trial)
    replicates = tuple(summarise_replicate(by_replicate[r], base) for r in sorted(by_replicate))
    validation, test, rise = cell_losses(replicates)
    return CellSummary(
        arm=arm,
        size=size,
        counts=count_states(trials, results.config.confirm.seeds),
        replicates=replicates,
        validation=validation,
        test=test,
        retention_rise=rise,
        metrics=cell_metrics(replicates, "test"),
        validation_metrics=cell_metrics(replicates, "validation"),
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
