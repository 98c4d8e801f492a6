"""Bytes that two real workers hold, against the formula."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest

from study.protocol.state_bytes import state_bytes
from study.training.engine.zero import bucket_numel
from tests.helpers.phase_memory import (
    PHASES,
    STAGES,
    WORLD_SIZE,
    measure,
    measure_offload,
    measure_stock,
    switch_often,
)
from tests.helpers.workers import run_workers
from tests.tiers import thinned, tiered, wanted

FEW_SWITCHES, MANY_SWITCHES = 24, 200
SETTLED = 2
"""Looks."""


def bucket_bytes(active: int, precision: str) -> int:
    return bucket_numel(active) * (2 if precision == "bf16" else 4)


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    kinds = dict.fromkeys([*wanted(request, "precision", "stage"), ("bf16", 0)])
    return run_workers(functools.partial(measure, [*kinds]), WORLD_SIZE)


@pytest.fixture(scope="module")
def stock() -> list[dict[str, Any]]:
    return run_workers(measure_stock, WORLD_SIZE)


@pytest.fixture(scope="module")
def offloaded() -> list[dict[str, Any]]:
    return run_workers(measure_offload, WORLD_SIZE)


@pytest.fixture(scope="module")
def switched(request: pytest.FixtureRequest) -> dict[tuple[int, int], dict[str, list[float]]]:
    kinds = wanted(request, "stage", "switches")
    return run_workers(functools.partial(switch_often, kinds), 1)[0]


def alternating(precision: str, stage: int, *_: str) -> str:
    """By default every stage in one precision, with `ray` in both."""
    return "default" if (precision == "fp32") == (stage == 1) else "ray"


KINDS = tiered(itertools.product(["bf16", "fp32"], STAGES), alternating)
KINDS_AND_PHASES = tiered(itertools.product(["bf16", "fp32"], STAGES, PHASES), alternating)


@pytest.mark.parametrize(("precision", "stage", "phase"), KINDS_AND_PHASES)
def test_steady_bytes_are_the_formulas_within_a_tenth(
    measured: list[dict[str, Any]], precision: str, stage: int, phase: str
) -> None:
    for worker in measured:
        one = worker[f"{precision}-{stage}-{phase}"]
        formula = state_bytes(one["parameters"], one["active"], WORLD_SIZE, stage, precision)
        between = one["between"] - formula.weights
        assert between >= 0.9 * formula.steady
        # The last bucket lives until the autograd engine's thread lets go of it.
        assert between - bucket_bytes(one["active"], precision) <= 1.1 * formula.steady
        # DeepSpeed frees the gradients at the step.
        assert one["after"] - formula.weights <= 1.01 * formula.steady


@pytest.mark.parametrize(
    ("precision", "stage", "phase"),
    tiered(itertools.product(["bf16"], STAGES, PHASES), alternating),
)
def test_the_peak_in_bf16_is_the_formulas_within_a_tenth(
    measured: list[dict[str, Any]], precision: str, stage: int, phase: str
) -> None:
    for worker in measured:
        one = worker[f"{precision}-{stage}-{phase}"]
        formula = state_bytes(one["parameters"], one["active"], WORLD_SIZE, stage, "bf16")
        peak = one["peak"] - formula.weights
        if stage == 3:
            # Two matrices gathered, their gradients, and the copies that reduce-scatter makes.
            peak -= 2 * 6 * max(one["largest"], bucket_numel(one["active"]))
        # Groups at rates of their own step in turn, each with fp32 gradients of its own.
        least = 0.8 if phase == "three rates" else 0.9
        assert least * formula.peak < one["peak"] - formula.weights
        assert peak <= 1.1 * formula.peak
        assert one["build"] - formula.weights <= 1.1 * formula.peak + 2 * one["parameters"]


@pytest.mark.parametrize(("precision", "stage", "phase"), KINDS_AND_PHASES)
def test_what_is_recorded_of_a_phase_is_the_formulas_within_a_tenth(
    measured: list[dict[str, Any]], precision: str, stage: int, phase: str
) -> None:
    ranks = [worker[f"{precision}-{stage}-{phase}"] for worker in measured]
    parameters, active = ranks[0]["parameters"], ranks[0]["active"]
    formula = state_bytes(parameters, active, WORLD_SIZE, stage, precision)
    steady, peak = (max(one[f"watched {kind}"] for one in ranks) for kind in ("steady", "peak"))
    assert steady == pytest.approx(formula.steady, rel=0.1)
    # With two ranks stage 1 holds exactly nine tenths in bf16: it never has the other rank's
    # gradients and its own in fp32 at once.
    assert 0.9 * formula.peak <= 1.001 * peak
    assert peak - bucket_bytes(active, precision) <= 1.1 * formula.peak
    assert peak <= 1.11 * formula.peak
    # It is what really lived then, activations and buckets apart.
    assert all(one["watched peak"] <= one["peak"] - one["weights"] for one in ranks)


def test_only_the_first_steps_are_watched(measured: list[dict[str, Any]]) -> None:
    assert {one["watching"] for worker in measured for one in worker.values()} == {0}


def test_a_step_that_holds_more_shows_in_the_record(
    measured: list[dict[str, Any]], stock: list[dict[str, Any]]
) -> None:
    for ours, deepspeeds in zip(measured, stock, strict=True):
        lean, copied = ours["bf16-0-full"], deepspeeds["bf16-0-full"]
        # All gradients once more, in fp32.
        assert copied["watched peak"] > lean["watched peak"] + 3.5 * lean["active"]


@pytest.mark.parametrize(("precision", "stage"), KINDS)
def test_a_closed_phase_leaves_the_weights_only_whatever_trained_before(
    measured: list[dict[str, Any]], precision: str, stage: int
) -> None:
    for worker in measured:
        for phase in PHASES:
            one = worker[f"{precision}-{stage}-{phase}"]
            formula = state_bytes(one["parameters"], one["active"], WORLD_SIZE, stage, precision)
            assert one["closed"] == pytest.approx(formula.weights, rel=0.01)


@pytest.mark.parametrize(("precision", "stage"), KINDS)
def test_what_an_engine_says_it_holds_is_what_lives(
    measured: list[dict[str, Any]], precision: str, stage: int
) -> None:
    for worker in measured:
        for phase in PHASES:
            one = worker[f"{precision}-{stage}-{phase}"]
            assert one["weights"] + one["state"] == pytest.approx(one["after"], rel=0.01)


@pytest.mark.parametrize(("precision", "stage"), KINDS)
def test_frozen_parameters_have_no_gradient_and_no_master_copy(
    measured: list[dict[str, Any]], precision: str, stage: int
) -> None:
    for worker in measured:
        for phase in PHASES:
            one = worker[f"{precision}-{stage}-{phase}"]
            share = one["active"] / (WORLD_SIZE if stage else 1)
            assert one["frozen gradients"] == 0
            master = 0 if (stage, precision) == (0, "fp32") else 4 * share
            assert one["master"] == pytest.approx(master, rel=0.01)
            assert one["moments"] == pytest.approx(8 * share, rel=0.01)


@pytest.mark.parametrize("arm", ["full", "lift"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_offloaded_optimizer_trains_alike_and_holds_its_share(
    offloaded: list[dict[str, Any]], stage: int, arm: str
) -> None:
    for worker in offloaded:
        one = worker[f"{stage}-{arm}"]
        assert one["offloads"]
        assert one["master"] == pytest.approx(4 * one["active"] / WORLD_SIZE, rel=0.02)
        assert one["moments"] == pytest.approx(8 * one["active"] / WORLD_SIZE, rel=0.02)
        assert one["difference"] < 1e-6 < one["moved"]


@pytest.mark.parametrize(
    ("stage", "switches"),
    thinned(
        itertools.product(STAGES, (FEW_SWITCHES, MANY_SWITCHES)),
        lambda _, switches: switches == FEW_SWITCHES,
    ),
)
def test_phase_switches_leave_the_process_as_it_was(
    switched: dict[tuple[int, int], dict[str, list[float]]], stage: int, switches: int
) -> None:
    counts = switched[stage, switches]
    assert set(counts["engines"]) == {0}
    assert set(counts["hooks"]) == {0}
    # Phases of all groups have passed by then; objects of one phase are thousands.
    settled = {name: values[SETTLED:] for name, values in counts.items()}
    # A phase's own state is ten times as much.
    assert settled["bytes"][-1] - settled["bytes"][0] < 1024
    assert settled["objects"][-1] - settled["objects"][0] < 100
    assert settled["resident"][-1] - settled["resident"][0] < 8 * 2**20


def test_full_precision_needs_no_master_of_its_own_on_stage_0() -> None:
    assert state_bytes(10, 4, 2, 0, "fp32").steady == 4 * (4 + 8)
    assert state_bytes(10, 4, 2, 0, "bf16").steady == 4 * (2 + 4 + 8)


def test_the_formula_by_hand() -> None:
    for stage, weights, steady, peak in (
        (1, 2_000, 2_000 + 3_000, 6_000),
        (2, 2_000, 14_000 // 4, 18_000 // 4),
        (3, 500, 14_000 // 4, 14_000 // 4),
    ):
        formula = state_bytes(1_000, 1_000, 4, stage, "bf16")
        assert (formula.weights, formula.steady, formula.peak) == (weights, steady, peak)
        assert formula.host == 0


def test_offloading_takes_the_optimizer_off_the_device() -> None:
    there = state_bytes(1_000, 1_000, 4, 2, "bf16", offload=True)
    assert there.steady == 500
    assert there.host == (12 + 4 + 2) * 250
    assert state_bytes(1_000, 1_000, 4, 0, "bf16", offload=True).host == 0
