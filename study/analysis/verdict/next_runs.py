"""When the evidence is short: the cheapest runs that would say more, as edits of the study file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.analysis.cells.base import CellSummary, Gate
from study.analysis.curve.fit import Curve
from study.analysis.rules import ENOUGH, Pair
from study.analysis.verdict.growth import Growth, grown, mended, nearest_gap
from study.analysis.verdict.outlook import Outlook
from study.analysis.verdict.records import NextRuns
from study.config.load import StudyConfig

_AT_MOST = 3
_MORE_REPLICATES, _MORE_SEEDS = (1, 2, 3, 5, 8), (1, 2, 4, 6)
"""Tried in turn."""
_USEFUL, _WORTH = 0.75, 0.98
"""Shares of the half-width. Where no number of runs is likely to decide, the fewest that leave at
most the first are named; those that leave more than the second never are."""


def next_runs(
    config: StudyConfig,
    curve: Curve | None,
    cells: Sequence[CellSummary],
    dataset_size: int,
    failed_gates: Sequence[Gate] = (),
    trials: int = 0,
    pair: Pair | None = None,
) -> tuple[NextRuns, ...]:
    """The cheapest runs that would shorten the interval at a size, at most three.

    A study that has not ended should first end. Runs that are expected to give a verdict come
    first, by what they cost; then the others, by what a shorter interval costs with them. Where a
    gate of the plan fails, each has what mends it. Where one of the outcome fails, more runs of
    the same kind are no remedy, and there are none.

    Args:
        config: the study file.
        curve: of the confirm runs on record; None: too few.
        cells: of both arms.
        failed_gates: at `dataset_size`.
        trials: of each search, that it needs to be long enough.
        pair: what is compared; None: the study's first two arms.
    """
    if len(config.arms.names) < 2:
        return ()
    outlook = Outlook(config, curve, cells, dataset_size, pair)
    if (rest := outlook.finished()) is not None:
        return (rest,)
    if curve is not None and any(not gate.from_plan for gate in failed_gates):
        return ()
    start = mended(config, dataset_size)
    start = grown(start, trials=max(0, trials - start.search.trials))
    found = [outlook.after(Growth(config, start))] if start != config else []
    found += [run for kind in _kinds(start, dataset_size) if (run := _best(outlook, kind))]
    found.sort(key=_order)
    if not outlook.split_dominates:
        return tuple(found[:_AT_MOST])
    return (*found[: _AT_MOST - 1], outlook.with_bigger_split())


def _kinds(start: StudyConfig, size: int) -> Iterator[list[StudyConfig]]:
    """For each way to grow, the files in ascending order of what they add."""
    yield [grown(start, replicates=more) for more in _MORE_REPLICATES]
    yield [grown(start, seeds=more) for more in _MORE_SEEDS]
    yield [grown(start, trials=start.search.trials)]
    gap = nearest_gap(start.dataset_sizes, size)
    if gap is not None:
        yield [grown(start, sizes=[gap])]


def _best(outlook: Outlook, kind: Sequence[StudyConfig]) -> NextRuns | None:
    """The smallest growth of a kind that is likely to decide; else the smallest useful one; else
    the largest. None where that does next to nothing."""
    useful = last = None
    for config in kind:
        found = outlook.after(Growth(outlook.config, config))
        if _left(found) > _WORTH:
            continue
        if _decides(found):
            return found
        if useful is None and _left(found) <= _USEFUL:
            useful = found
        last = found
    return useful or last


def _decides(runs: NextRuns) -> bool:
    return runs.power is not None and runs.power >= ENOUGH


def _left(runs: NextRuns) -> float:
    """Share of the half-width that these runs are expected to leave; 0 where there is none yet."""
    if not runs.half_width or runs.expected_half_width is None:
        return 0.0
    return runs.expected_half_width / runs.half_width


def _order(runs: NextRuns) -> tuple[bool, float]:
    cost = float(runs.trials) if runs.device_seconds is None else runs.device_seconds
    if _decides(runs):
        return False, cost
    return True, cost / max(1.0 - _left(runs), 1e-9)
