"""A study in numbers, computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.analysis.cells.base import CellSummary, Difference, Split, StateCounts
from study.analysis.cells.best_of_k import best_of_k
from study.analysis.cells.cost_records import PrefixCacheSummary
from study.analysis.cells.costs import cell_cost
from study.analysis.cells.estimates import (
    cell_losses,
    cell_metrics,
    count_states,
    paired_difference,
    summarise_replicate,
)
from study.analysis.cells.prefix_cache import summarise_prefix_cache
from study.analysis.curve.evidence import Evidence, evidence_of
from study.analysis.curve.fit import Curve
from study.analysis.rules import REACH, Pair, pairs_of
from study.analysis.verdict.decide import decide
from study.analysis.verdict.memory import least_gib, ran_out
from study.analysis.verdict.ranking import Ranking, rankings
from study.analysis.verdict.records import Verdict
from study.config.load import StudyConfig
from study.protocol.records import BaseModelRecord, TrialRecord
from study.protocol.results import StudyResults


@dataclass(frozen=True)
class StudySummary:
    """Everything a report says in numbers.

    Attributes:
        cells: in the order of the arms, then of ascending size; one per arm and size of the study.
        pair: the arms that are compared: differences, curve, verdicts and grid are theirs.
        differences: test-loss differences by ascending size; empty for one arm or no confirm runs.
        validation_differences: the same for the winners' validation losses.
        counts: over all trials.
        unlearned: (arm, size) of cells whose mean loss is not below the base model's.
        prefix_cache: None without a trial that has ended and left blocks untrained.
        curve: the test-loss difference as a function of the size; None where confirm runs are too
            few for it.
        verdicts: for the sizes that were asked about; in a study that compares nothing those only
            that memory decides.
        grid: for many sizes, without next runs, to look any size up in; empty without a curve.
        rankings: in a study that compares nothing, the best configurations per arm and size.
    """

    config: StudyConfig
    base: BaseModelRecord | None
    pair: Pair
    cells: tuple[CellSummary, ...]
    differences: tuple[Difference, ...]
    validation_differences: tuple[Difference, ...]
    counts: StateCounts
    unlearned: tuple[tuple[str, int], ...]
    prefix_cache: PrefixCacheSummary | None
    curve: Curve | None
    verdicts: tuple[Verdict, ...] = ()
    grid: tuple[Verdict, ...] = ()
    rankings: tuple[Ranking, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        return self.config.arms.names

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All that can be compared, the default one first; see `summarise`."""
        return pairs_of(self.arms)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted({cell.size for cell in self.cells}))

    @property
    def finished(self) -> bool:
        """Whether nothing waits or runs any more."""
        return self.counts.planned == self.counts.ended

    @property
    def split(self) -> Split:
        """The split that the study's losses are read on: test as soon as any is on record."""
        return "test" if any(cell.test for cell in self.cells) else "validation"

    @property
    def shown_differences(self) -> tuple[Difference, ...]:
        """Those on `split`."""
        return self.differences if self.split == "test" else self.validation_differences

    @property
    def winners(self) -> frozenset[str]:
        """Names of the search trials that won a replicate."""
        won = (r.winner for cell in self.cells for r in cell.replicates)
        return frozenset(trial.spec.trial_id for trial in won if trial is not None)

    def base_loss(self, split: Split) -> float | None:
        if self.base is None:
            return None
        return self.base.test_loss if split == "test" else self.base.validation_loss

    @property
    def cells_by_size(self) -> tuple[CellSummary, ...]:
        """By ascending size, the arms of each beside one another."""
        return tuple(sorted(self.cells, key=lambda cell: cell.size))

    def cell(self, arm: str, size: int) -> CellSummary:
        """Raises KeyError when the study has no such cell."""
        for cell in self.cells:
            if (cell.arm, cell.size) == (arm, size):
                return cell
        raise KeyError((arm, size))


_GRID = 61


def summarise(
    results: StudyResults,
    dataset_sizes: Sequence[int] = (),
    memory_limit_gib: float | None = None,
    *,
    with_grid: bool = True,
    pair: Pair | None = None,
) -> StudySummary:
    """Everything the report and the command line say in numbers, computed once.

    Args:
        dataset_sizes: what a verdict is asked for; empty: the study file's size, else the largest.
        memory_limit_gib: of one device; None: the study file's.
        with_grid: whether sizes will be looked up in the summary later.
        pair: the arms to compare; None: the study's first two in the order of the strategies.

    Raises:
        ValueError: one of them is not positive.
    """
    config = results.config
    cells = _cells(results)
    evidence = _evidence(results, cells, pair)
    pair = evidence.pair
    asked = dataset_sizes or (config.decision.dataset_size or config.dataset_sizes[-1],)
    verdicts = [verdict_of(evidence, size, memory_limit_gib) for size in asked]
    return StudySummary(
        config=config,
        base=results.base,
        pair=pair,
        cells=cells,
        differences=_differences(cells, pair, "test", evidence.curve),
        validation_differences=_differences(cells, pair, "validation", None),
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


def gather_evidence(results: StudyResults, pair: Pair | None = None) -> Evidence:
    """What `decide` reads, without the rest of a summary."""
    return _evidence(results, _cells(results), pair)


def _evidence(results: StudyResults, cells: Sequence[CellSummary], pair: Pair | None) -> Evidence:
    found = evidence_of(results.config, cells, results.base, best_of_k(results), pair)
    return replace(
        found,
        least_gib=least_gib(results.config, results.model_parameters, found.pair),
        ran_out=ran_out(results.trials, found.pair),
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
    cells: tuple[CellSummary, ...], pair: Pair, split: Split, curve: Curve | None
) -> tuple[Difference, ...]:
    left, right = ({c.size: c for c in cells if c.arm == arm} for arm in pair)
    both = sorted(left.keys() & right.keys())
    found = (paired_difference(left[n], right[n], split) for n in both)
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
