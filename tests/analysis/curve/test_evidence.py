"""Which runs are paired, and with what weight of the test split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from study.analysis import CellSummary
from study.analysis.curve.evidence import evidence_of
from study.analysis.curve.fit import Curve, PairedLosses, split_covariance
from study.analysis.curve.pairing import pair_runs, paired_losses
from study.analysis.rules import Pair
from study.analysis.summary import summarise
from study.protocol.records import BaseModelRecord, Stage, TrialRecord
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_trial


def with_test(trial: TrialRecord, losses: tuple[float, ...]) -> TrialRecord:
    assert trial.outcome is not None
    outcome = replace(trial.outcome, test_losses=losses, test_loss=float(np.mean(losses)))
    return replace(trial, outcome=outcome)


def make_cells(*, missing: tuple[str, ...] = (), examples: int = 6) -> tuple[CellSummary, ...]:
    """Two sizes, two replicates, two seeds; every test loss its own."""
    trials = []
    generator = np.random.default_rng(0)
    for arm in ("full", "lift"):
        for size in (64, 128):
            for replicate in (0, 1):
                trials.append(make_trial(arm, size, replicate, score=4.2))
                for index in (0, 1):
                    trial = make_trial(
                        arm, size, replicate, stage=Stage.CONFIRM, index=index, score=4.1
                    )
                    losses = tuple(generator.normal(4.0, 0.3, examples))
                    if trial.spec.trial_id not in missing:
                        trials.append(with_test(trial, losses))
    config = make_config(sizes=[64, 128], trials=1, replicates=2)
    return summarise(StudyResults(config, tuple(trials), BaseModelRecord(4.6, 4.7, None))).cells


def losses_of(cells: tuple[CellSummary, ...], arm: str, place: int) -> list[np.ndarray]:
    cell = next(c for c in cells if c.arm == arm and c.size == (64, 128)[place // 2])
    runs = cell.replicates[place % 2].confirm
    return [np.array(t.outcome.test_losses) for t in runs if t.outcome is not None]


def pair_losses(cells: tuple[CellSummary, ...], targets: tuple[int, ...] = ()) -> PairedLosses:
    curve = curve_of_loss(cells, targets)
    assert curve is not None
    return curve.paired


def curve_of_loss(cells: tuple[CellSummary, ...], targets: tuple[int, ...] = ()) -> Curve | None:
    base = BaseModelRecord(4.6, 4.7, None, test_targets=targets)
    return evidence_of(make_config(sizes=[64, 128]), cells, base).curve


def test_runs_are_paired_by_seed_within_replicates_of_one_size() -> None:
    cells = make_cells()
    paired = pair_losses(cells)
    assert paired.sizes.tolist() == [64, 64, 128, 128]
    assert paired.pairs.tolist() == [2] * 4
    examples = []
    for place in range(4):
        full, lift = (losses_of(cells, arm, place) for arm in ("full", "lift"))
        gaps = [f.mean() - g.mean() for f, g in zip(full, lift, strict=True)]
        assert paired.differences[place] == pytest.approx(np.mean(gaps))
        assert paired.scatter[place] == pytest.approx(np.var(gaps) * 2)
        examples.append(np.mean(full, axis=0) - np.mean(lift, axis=0))
    expected, number = split_covariance(examples, np.ones(6))
    np.testing.assert_allclose(paired.test_covariance, expected)
    assert paired.test_examples == number == 6


def test_examples_weigh_as_many_targets_as_they_have() -> None:
    cells, targets = make_cells(), (1, 2, 3, 4, 5, 6)
    even, weighted = pair_losses(cells), pair_losses(cells, targets)
    assert not np.allclose(even.test_covariance, weighted.test_covariance)


def test_a_run_without_its_counterpart_is_left_out() -> None:
    paired = pair_losses(make_cells(missing=("full-n64-r0-c0", "lift-n64-r0-c1")))
    assert paired.sizes.tolist() == [64, 128, 128]  # no seed of n64-r0 has both arms
    paired = pair_losses(make_cells(missing=("full-n64-r0-c0",)))
    assert paired.pairs.tolist() == [1, 2, 2, 2]


def test_nothing_to_pair_is_no_evidence() -> None:
    cells = tuple(c for c in make_cells() if c.arm == "full")
    assert pair_runs(cells, Pair("full", "lift")) == ()
    assert paired_losses((), lambda trial: 1.0) is None


def test_one_test_example_makes_no_curve() -> None:
    assert curve_of_loss(make_cells()) is not None
    assert curve_of_loss(make_cells(examples=1)) is None
