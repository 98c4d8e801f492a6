"""Everything the verdict is read from: curves over dataset size, fitted to the confirm runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.cells.base import CellSummary, ReplicateSummary
from study.analysis.cells.best_of_k import BestOfK
from study.analysis.cells.costs import cold_device_seconds_of, device_seconds_of, peak_memory_of
from study.analysis.curve.fit import Curve, Floats
from study.analysis.curve.forgetting import forgetting_curves
from study.analysis.curve.pairing import (
    PairedPoint,
    Quantity,
    curve_of,
    examples_error,
    pair_runs,
    paired_losses,
    single_losses,
)
from study.analysis.rules import Pair, pairs_of
from study.config.load import StudyConfig
from study.protocol.records import BaseModelRecord, TrialRecord


@dataclass(frozen=True, eq=False)
class Evidence:
    """On one pair of arms. Curves are None where the runs are too few for one.

    Attributes:
        pair: which is compared with which; signs and ratios are as it says.
        cells: of these arms.
        points: the replicates that both arms confirmed.
        tuning: what more search trials brought.
        least_gib, ran_out: see `Verdict.memory_least_gib` and `memory_ran_out`.
        curve: difference in test loss, nats.
        gains: of each arm, the base model's test loss less its own, nats.
        retention: difference in retention loss, nats: above 0, the challenger forgets less.
        matched_retention: the same at equal task loss.
        accuracy: challenger - reference, 0 to 1 (classification).
        cold_cost, spent_cost, wall_time, peak_memory: log of the ratio of a confirm run's
            device-seconds with an empty prefix cache, as spent, its wall seconds with start-up and
            checkpoints, and its peak bytes.
    """

    config: StudyConfig
    base: BaseModelRecord | None
    pair: Pair
    cells: tuple[CellSummary, ...]
    points: tuple[PairedPoint, ...]
    tuning: tuple[BestOfK, ...]
    curve: Curve | None
    gains: dict[str, Curve | None]
    retention: Curve | None
    matched_retention: Curve | None
    accuracy: Curve | None
    cold_cost: Curve | None
    spent_cost: Curve | None
    wall_time: Curve | None
    peak_memory: Curve | None
    least_gib: tuple[tuple[str, float], ...] = ()
    ran_out: tuple[str, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """Those of the pair that the study has."""
        return tuple(arm for arm in self.config.arms.names if arm in self.pair)


def evidence_of(
    config: StudyConfig,
    cells: Sequence[CellSummary],
    base: BaseModelRecord | None,
    tuning: Sequence[BestOfK] = (),
    pair: Pair | None = None,
) -> Evidence:
    """From the cells of a study in any state.

    Args:
        pair: None: the study's first.
    """
    pair = pair or pairs_of(config.arms.names)[0]
    cells = [cell for cell in cells if cell.arm in pair]
    points = pair_runs(cells, pair)
    retention, matched = forgetting_curves(cells, points)
    return Evidence(
        config=config,
        base=base,
        pair=pair,
        cells=tuple(cells),
        points=points,
        tuning=tuple(curve for curve in tuning if curve.arm in pair),
        curve=_loss_curve(points, base),
        gains={arm: _gain(cells, arm, base) for arm in pair},
        retention=retention,
        matched_retention=matched,
        accuracy=_accuracy_curve(points),
        cold_cost=_log_ratio(points, cold_device_seconds_of),
        spent_cost=_log_ratio(points, device_seconds_of),
        wall_time=_log_ratio(points, _wall_seconds),
        peak_memory=_log_ratio(points, peak_memory_of),
    )


def _loss_curve(points: Sequence[PairedPoint], base: BaseModelRecord | None) -> Curve | None:
    targets = () if base is None else base.test_targets

    def split_error(kept: Sequence[PairedPoint]) -> tuple[Floats, int]:
        gaps = [[_gaps(_examples(f), _examples(g)) for f, g in p.pairs] for p in kept]
        return examples_error(gaps, targets)

    return curve_of(paired_losses(points, _test_loss, split_error))


def _gain(cells: Sequence[CellSummary], arm: str, base: BaseModelRecord | None) -> Curve | None:
    if base is None:
        return None
    before = base.test_losses

    def gain(trial: TrialRecord) -> float | None:
        loss = _test_loss(trial)
        return None if loss is None else base.test_loss - loss

    def split_error(kept: Sequence[ReplicateSummary]) -> tuple[Floats, int]:
        gaps = [[_gaps(before, _examples(t)) for t in replicate.confirm] for replicate in kept]
        return examples_error(gaps, base.test_targets)

    replicates = [r for cell in cells if cell.arm == arm for r in cell.replicates]
    return curve_of(single_losses(replicates, gain, split_error))


def _accuracy_curve(points: Sequence[PairedPoint]) -> Curve | None:
    def split_error(kept: Sequence[PairedPoint]) -> tuple[Floats, int]:
        # Which examples were right is not on record. The arms disagree on at most as many as
        # either got wrong, and each disagreement moves the difference by one example.
        wrong = np.mean([sum(1.0 - (_accuracy(t) or 0.0) for t in pair) for pair in _pairs(kept)])
        examples = max(len(_examples(pair[0])) for pair in _pairs(kept))
        variance = min(float(wrong), 1.0) / examples if examples else 0.0
        return np.full((len(kept), len(kept)), variance), max(examples, 1)

    def minus_accuracy(trial: TrialRecord) -> float | None:
        found = _accuracy(trial)
        return None if found is None else -found

    return curve_of(paired_losses(points, minus_accuracy, split_error))


def _log_ratio(points: Sequence[PairedPoint], quantity: Quantity) -> Curve | None:
    def minus_log(trial: TrialRecord) -> float | None:
        found = quantity(trial)
        return -math.log(found) if found else None

    return curve_of(paired_losses(points, minus_log))


def _pairs(points: Sequence[PairedPoint]) -> list[tuple[TrialRecord, TrialRecord]]:
    return [pair for point in points for pair in point.pairs]


def _wall_seconds(trial: TrialRecord) -> float | None:
    if trial.started is None or trial.finished is None:
        return None
    return max(trial.finished - trial.started, 0.0)


def _test_loss(trial: TrialRecord) -> float | None:
    loss = None if trial.outcome is None else trial.outcome.test_loss
    return loss if loss is not None and math.isfinite(loss) else None


def _examples(trial: TrialRecord) -> tuple[float, ...]:
    return () if trial.outcome is None else trial.outcome.test_losses


def _gaps(left: Sequence[float], right: Sequence[float]) -> Floats:
    """Nothing where the two do not hold the same examples."""
    return np.subtract(left, right) if len(left) == len(right) else np.empty(0)


def _accuracy(trial: TrialRecord) -> float | None:
    return None if trial.outcome is None else trial.outcome.test_metrics.get("accuracy")
