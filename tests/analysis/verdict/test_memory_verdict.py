"""Memory decides where one arm fits and has learned; the other needs no run to be left out."""

from __future__ import annotations

import dataclasses

import pytest

from study.analysis import Verdict, decide
from study.analysis.rules import Pair
from study.analysis.summary import gather_evidence, summarise
from study.analysis.verdict.memory import least_gib
from study.protocol.records import OUT_OF_MEMORY, Stage, TrialState
from study.protocol.results import StudyResults
from study.protocol.state_bytes import state_bytes
from study.report import headline, setting_of
from tests.analysis.comparisons import compare, full_minus_lift
from tests.helpers.results import make_config

PAIR = Pair("full", "lift")

PARAMETERS = 100_000_000
FULL_GIB = 16 * PARAMETERS / 2**30
"""On stage 0: weights, gradients, master weights and two moments, in bf16 or in fp32."""


def lift_alone(**changes: object) -> StudyResults:
    """LIFT, at 300 MiB, learned; full is no part of the study."""
    shape = {"arms": ["lift"], "zero": {"stage": 0}} | changes
    results = compare(full_minus_lift(lambda n: 0.0), **shape)  # type: ignore[arg-type]
    return dataclasses.replace(results, model_parameters=PARAMETERS)


def full_ran_out(results: StudyResults) -> StudyResults:
    trials = tuple(
        t
        if t.spec.arm == "lift"
        else dataclasses.replace(
            t,
            state=TrialState.FAIL,
            measurements=(),
            outcome=dataclasses.replace(
                t.outcome, status="error", reason=f"{OUT_OF_MEMORY}: CUDA out of memory", phases=()
            ),
        )
        for t in results.trials
        if t.outcome is not None and (t.spec.arm == "lift" or t.spec.stage is Stage.SEARCH)
    )
    return dataclasses.replace(results, trials=trials)


def words(results: StudyResults, verdict: Verdict) -> str:
    return headline(verdict, setting_of(results, summarise(results)))


def test_full_is_ruled_out_by_formula_where_only_lift_ran() -> None:
    results = lift_alone()
    (found,) = summarise(results, (400,), FULL_GIB - 0.01).verdicts
    assert (found.answer, found.arm, found.is_claim) == ("memory", "lift", True)
    assert dict(found.memory_least_gib) == pytest.approx({"full": FULL_GIB})
    text = words(results, found)
    assert "use LIFT" in text and "only arm that fits into 1.48" in text
    assert "full's weights and optimizer alone take 1.49 GiB" in text
    gate = next(gate for gate in found.gates if gate.name == "Memory")
    assert gate.status == "warn" and "full: at least 1.49 GiB by formula" in gate.found
    # The same from the study file.
    own = lift_alone(decision={"memory_limit_gib": 1.0})
    assert [v.answer for v in summarise(own).verdicts] == ["memory"]


@pytest.mark.parametrize("limit", [None, FULL_GIB + 0.01, 0.2])
def test_one_arm_alone_has_no_verdict_where_memory_does_not_decide(limit: float | None) -> None:
    """No limit, one that full may fit in, and one that LIFT does not fit in either."""
    assert summarise(lift_alone(), (400,), limit).verdicts == ()


def test_an_arm_that_fits_and_learned_nothing_is_not_recommended() -> None:
    results = lift_alone()
    flat = compare(lambda arm, size: 4.63, arms=["lift"])
    for nothing in (flat, dataclasses.replace(results, base=None)):
        nothing = dataclasses.replace(nothing, model_parameters=PARAMETERS)
        assert summarise(nothing, (400,), 1.0).verdicts == ()


def test_whether_the_other_arm_learned_does_not_matter() -> None:
    results = compare(lambda arm, size: 4.63 if arm == "full" else 4.0)
    found = decide(gather_evidence(results), 400, 0.5)
    assert [gate.name for gate in found.failed_gates] == ["Learning"]
    assert (found.answer, found.arm) == ("memory", "lift")


def test_an_arm_that_ran_out_of_memory_is_out_on_the_study_s_own_devices() -> None:
    results = full_ran_out(compare(full_minus_lift(lambda n: 0.0)))
    found = decide(gather_evidence(results), 400)
    assert (found.answer, found.arm, found.memory_ran_out) == ("memory", "lift", ("full",))
    text = words(results, found)
    assert "only arm that fits the study's devices" in text
    assert "full ran out of memory with one example per pass" in text
    # Of larger devices that says nothing, and of those that the formula rules out it need not.
    assert decide(gather_evidence(results), 400, 80.0).answer == "not_enough_evidence"
    small = dataclasses.replace(results, model_parameters=PARAMETERS)
    assert decide(gather_evidence(small), 400, 0.5).arm == "lift"


def test_an_arm_of_which_any_trial_completed_has_not_run_out() -> None:
    whole = compare(full_minus_lift(lambda n: 0.0))
    lost = full_ran_out(whole)
    kept = whole.trials[0]
    assert kept.spec.arm == "full"
    results = dataclasses.replace(lost, trials=(kept, *lost.trials[1:]))
    assert gather_evidence(results).ran_out == ()


def test_a_measured_peak_counts_more_than_the_formula() -> None:
    results = compare(full_minus_lift(lambda n: -0.05), zero={"stage": 0})
    results = dataclasses.replace(results, model_parameters=PARAMETERS)
    # Full peaked at 900 MiB, whatever it should have held.
    assert decide(gather_evidence(results), 400, 1.2).answer == "better"


def test_what_full_holds_is_the_formula_at_its_lowest() -> None:
    def least(**changes: object) -> float:
        return dict(least_gib(make_config(**changes), PARAMETERS, PAIR))["full"] * 2**30  # type: ignore[arg-type]

    two = {"workers_per_trial": 2}
    for stage in (0, 1, 2, 3):
        states = [
            state_bytes(PARAMETERS, PARAMETERS, 2, stage, precision)
            for precision in ("bf16", "fp32")
        ]
        expected = min(state.weights + state.peak for state in states)
        assert least(zero={"stage": stage}, resources=two) == pytest.approx(expected)
    on_host = {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}
    held = state_bytes(PARAMETERS, PARAMETERS, 2, 3, "bf16", offload=True)
    assert least(zero=on_host, resources=two) == pytest.approx(held.peak)
    assert least_gib(make_config(), None, PAIR) == ()
    told = {"stage": 2, "overrides": {"zero_optimization": {"stage": 3}}}
    assert least_gib(make_config(zero=told), PARAMETERS, PAIR) == (), "DeepSpeed was told otherwise"
