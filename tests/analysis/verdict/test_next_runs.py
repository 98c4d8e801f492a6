"""The cheapest next runs: what they cost, what they are expected to do, and when there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from study.analysis.cells.base import CellSummary, Gate
from study.analysis.curve.fit import Curve, PairedLosses
from study.analysis.rules import ENOUGH
from study.analysis.summary import gather_evidence
from study.analysis.verdict.gates import plan_gates
from study.analysis.verdict.growth import Growth, filled, grown, mended
from study.analysis.verdict.next_runs import next_runs
from study.analysis.verdict.outlook import Outlook
from study.config.load import StudyConfig
from study.protocol.extension import extension
from tests.helpers.results import make_config, make_results

RHO = 0.01
SIZES = (250, 500, 1000, 2000)
ASKED = 700


def config_of(
    sizes: tuple[int, ...] = SIZES, replicates: int = 3, seeds: int = 2, trials: int = 4
) -> StudyConfig:
    return make_config(sizes=sizes, replicates=replicates, trials=trials, confirm_seeds=seeds)


def curve_of(
    config: StudyConfig,
    random: np.random.Generator,
    *,
    truth: float = 0.0,
    between: float = 0.005,
    within: float = 0.005,
    split: float = 0.0,
) -> Curve:
    """D(n) = `truth` everywhere; the others are standard deviations in nats."""
    sizes = np.repeat(np.array(config.dataset_sizes, float), config.search.replicates)
    points, seeds = len(sizes), config.confirm.seeds
    gaps = truth + random.normal(0, between, points)[:, None]
    gaps = gaps + random.normal(0, within, (points, seeds)) + random.normal(0, split)
    return Curve(
        PairedLosses(
            sizes=sizes,
            differences=gaps.mean(axis=1),
            pairs=np.full(points, seeds),
            scatter=((gaps - gaps.mean(axis=1, keepdims=True)) ** 2).sum(axis=1),
            test_covariance=np.full((points, points), split**2),
            test_examples=500,
        )
    )


def cells_of(
    config: StudyConfig, progress: float = 1.0, lift_cost: float = 100.0
) -> tuple[CellSummary, ...]:
    """With `lift_cost` device-seconds of a cold run against full's 100."""
    cells = gather_evidence(make_results(config=config, progress=progress)).cells
    cold = {"full": 100.0, "lift": lift_cost}
    return tuple(
        replace(cell, cost=replace(cell.cost, run_cold_device_seconds=cold[cell.arm]))
        for cell in cells
    )


def test_runs_that_are_expected_to_decide_come_first_by_their_cost() -> None:
    config = config_of()
    curve = curve_of(config, np.random.default_rng(1), truth=2.5 * RHO, between=0.01, within=0.01)
    found = next_runs(config, curve, cells_of(config), ASKED)
    assert 1 < len(found) <= 3
    deciding = [run for run in found if (run.power or 0) >= ENOUGH]
    assert deciding and list(found[: len(deciding)]) == deciding
    costs = [run.device_seconds or 0 for run in deciding]
    assert costs == sorted(costs)
    for run in found:
        assert run.half_width is not None and run.expected_half_width is not None
        assert run.expected_half_width < run.half_width


def test_a_run_costs_what_those_on_record_did() -> None:
    config = config_of()
    cells = cells_of(config)
    outlook = Outlook(config, curve_of(config, np.random.default_rng(0)), cells, ASKED)
    more = outlook.after(Growth(config, grown(config, replicates=2)))
    # 2 replicates x 4 sizes x 2 arms x (4 search + 2 confirm) runs.
    assert more.trials == 96
    seconds = sum(12 * (cell.cost.run_device_seconds or 0) for cell in cells)
    assert more.device_seconds == pytest.approx(seconds)
    assert (more.change, more.reason) == (
        "search.replicates: 5",
        "2 more replicates at every size",
    )
    sizes = outlook.after(Growth(config, grown(config, sizes=[4000])))
    assert sizes.trials == 3 * 2 * 6
    assert sizes.change == "dataset_sizes: [250, 500, 1000, 2000, 4000]"
    at_2000 = [c.cost.run_device_seconds or 0 for c in cells if c.size == 2000]
    assert sizes.device_seconds == pytest.approx(36 * np.mean(at_2000) * 2)  # twice the steps
    seeds = outlook.after(Growth(config, grown(config, seeds=1)))
    assert seeds.trials == 4 * 3 * 2
    trials = outlook.after(Growth(config, grown(config, trials=4)))
    # Half of the winners are expected to change, each with 2 confirm runs.
    assert trials.trials == 4 * 3 * 2 * 4 + 4 * 6


def test_costs_are_unknown_where_nothing_ran() -> None:
    config = config_of()
    outlook = Outlook(config, curve_of(config, np.random.default_rng(0)), (), ASKED)
    assert outlook.after(Growth(config, grown(config, seeds=1))).device_seconds is None


@pytest.mark.parametrize("growth", [{"replicates": 3}, {"seeds": 4}, {"sizes": [710]}])
def test_the_expected_half_width_is_that_of_larger_studies(growth: dict) -> None:
    """Mean over studies: what each expects of its growth, against studies that have grown."""
    config, random = config_of(replicates=4), np.random.default_rng(5)
    larger = grown(config, **growth)
    noise = {"between": 0.006, "within": 0.01, "split": 0.002}
    expected, found = [], []
    for _ in range(200):
        outlook = Outlook(config, curve_of(config, random, **noise), (), ASKED)
        expected.append(outlook.after(Growth(config, larger)).expected_half_width)
        at = curve_of(larger, random, **noise).at(ASKED)
        found.append(float(at.high[0] - at.low[0]) / 2)
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.08)


def test_more_seeds_are_not_named_where_seeds_make_no_difference() -> None:
    config = config_of()
    curve = curve_of(config, np.random.default_rng(6), truth=0.015, between=0.02, within=1e-5)
    found = next_runs(config, curve, cells_of(config), ASKED)
    assert found and not any(run.change.startswith("confirm.seeds") for run in found)


def test_a_tiny_difference_is_not_said_to_be_decidable() -> None:
    config = config_of()
    curve = curve_of(config, np.random.default_rng(7), truth=0.0)
    found = next_runs(config, curve, cells_of(config), ASKED)
    assert found and all((run.power or 0) < 0.2 for run in found)


def test_not_being_worse_is_enough_for_an_arm_that_is_cheaper() -> None:
    config = config_of()
    curve = curve_of(config, np.random.default_rng(7), truth=0.0)
    found = next_runs(config, curve, cells_of(config, lift_cost=60.0), ASKED)
    assert (found[0].power or 0) >= ENOUGH


def test_a_plan_that_fails_its_gates_gets_what_mends_them_with_every_edit() -> None:
    config = config_of(sizes=(250, 1000), replicates=2, seeds=1)
    failed = [g for g in plan_gates(config, 1000) if g.status == "fail"]
    assert {g.name for g in failed} == {"Dataset sizes", "Confirm runs"}
    after = mended(config, 1000)
    assert all(gate.status != "fail" for gate in plan_gates(after, 1000))
    assert extension(config, after)
    found = next_runs(config, None, cells_of(config), 1000, failed)
    assert len(found) == 3
    assert found[0].change == Growth(config, after).change
    assert all("dataset_sizes: [125, " in run.change for run in found)
    assert all(run.half_width is None and run.expected_half_width for run in found)


@pytest.mark.parametrize("asked", [100, 3200, 20_000])
def test_a_size_far_outside_is_added(asked: int) -> None:
    config = config_of()
    assert any(gate.status == "fail" for gate in plan_gates(config, asked))
    after = mended(config, asked)
    assert asked in after.dataset_sizes
    assert all(gate.status != "fail" for gate in plan_gates(after, asked))
    curve = curve_of(config, np.random.default_rng(8))
    failed = [g for g in plan_gates(config, asked) if g.status == "fail"]
    assert all(str(asked) in r.change for r in next_runs(config, curve, (), asked, failed))


def test_a_study_that_passes_its_gates_is_not_mended() -> None:
    config = config_of()
    assert mended(config, ASKED) == config


def test_new_sizes_are_spread_evenly() -> None:
    assert filled([32, 256], 4) == [32, 64, 130, 256]
    assert filled([100, 800], 3) == [100, 280, 800]
    assert filled([10, 11], 4) == [10, 11]
    assert filled([1, 4], 9) == [1, 2, 4]


def test_a_gate_of_the_outcome_is_no_matter_of_more_runs() -> None:
    config = config_of()
    gate = Gate("Learning", "fail", "", "", "Train longer.")
    curve = curve_of(config, np.random.default_rng(0))
    assert next_runs(config, curve, cells_of(config), ASKED, [gate]) == ()


def test_an_unfinished_study_should_first_be_finished() -> None:
    config = config_of()
    cells = cells_of(config, progress=0.7)
    (rest,) = next_runs(config, None, cells, ASKED)
    assert rest.change == "study run"
    left = sum(cell.counts.planned - cell.counts.ended for cell in cells)
    assert rest.trials == left > 0 and rest.device_seconds is not None


def test_a_test_split_whose_error_dominates_is_said_to_need_more_examples() -> None:
    config = config_of(replicates=8)
    curve = curve_of(config, np.random.default_rng(9), truth=0.02, split=0.008)
    found = next_runs(config, curve, cells_of(config), ASKED)
    assert found[-1].change.startswith("a new study with 5,200 test examples")
    assert found[-1].trials == 4 * 8 * 2 * 6
    assert (found[-1].expected_half_width or 1) < 0.6 * (found[-1].half_width or 0)
    quiet = curve_of(config, np.random.default_rng(9), truth=0.02, split=0.001)
    assert not any("new study" in r.change for r in next_runs(config, quiet, (), ASKED))


def test_one_arm_has_nothing_to_decide() -> None:
    config = make_config(arms=("full",), sizes=SIZES)
    assert next_runs(config, None, cells_of(config), ASKED) == ()
