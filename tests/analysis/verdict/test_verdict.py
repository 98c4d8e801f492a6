"""The decision rule, step by step, on studies whose difference is plain."""

from __future__ import annotations

import dataclasses
import math

import pytest

from study.analysis import Verdict, decide
from study.analysis.summary import gather_evidence, summarise
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from tests.analysis.comparisons import SIZES, compare, full_minus_lift


def verdict(results: StudyResults, size: int = 400, limit: float | None = None) -> Verdict:
    return decide(gather_evidence(results), size, limit)


def test_a_difference_beyond_rho_is_better() -> None:
    found = verdict(compare(full_minus_lift(lambda n: 0.05)))
    assert (found.answer, found.arm, found.confidence) == ("better", "lift", 0.99)
    assert not found.failed_gates and not found.next_runs and found.is_claim
    assert found.difference is not None and found.difference.low is not None
    assert found.difference.low < 0.05 < (found.difference.high or 0)
    assert found.basis == "device_seconds"
    change = found.perplexity_change
    assert change is not None and change.value == pytest.approx(
        1 - math.exp(-found.difference.value)
    )
    other = verdict(compare(full_minus_lift(lambda n: -0.05)))
    assert (other.answer, other.arm) == ("better", "full")


def test_the_answer_may_change_with_the_size() -> None:
    evidence = gather_evidence(compare(full_minus_lift(lambda n: 0.02 * (8.6 - math.log2(n)))))
    assert decide(evidence, 100).arm == "lift"
    assert decide(evidence, 1600).arm == "full"
    assert decide(evidence, 400).answer == "not_enough_evidence"  # they cross near 390
    assert decide(evidence, 1600).chances["lift"].better == pytest.approx(
        1 - decide(evidence, 1600).chances["full"].better
    )


def test_not_worse_and_cheaper_is_enough_but_only_by_a_tenth() -> None:
    even = full_minus_lift(lambda n: 0.0)
    cheap = verdict(compare(even, costs={"full": 20.0, "lift": 15.0}))
    assert (cheap.answer, cheap.arm) == ("cheaper", "lift")
    assert cheap.cost is not None and cheap.cost.value == pytest.approx(0.75)
    assert cheap.confidence is not None and cheap.confidence >= 0.95
    dear = verdict(compare(even, costs={"full": 20.0, "lift": 30.0}))
    assert (dear.answer, dear.arm) == ("cheaper", "full")
    near = verdict(compare(even, costs={"full": 20.0, "lift": 18.5}))
    assert near.answer in ("lean", "not_enough_evidence")
    # What is cheap and worse by more than rho is not recommended for its price.
    worse = verdict(compare(full_minus_lift(lambda n: -0.02), costs={"full": 20.0, "lift": 1.0}))
    assert (worse.answer, worse.arm) == ("better", "full")


def test_a_small_difference_is_a_lean_with_next_runs() -> None:
    found = verdict(compare(full_minus_lift(lambda n: 0.006)))
    assert (found.answer, found.arm) == ("lean", "lift")
    assert not found.is_claim and found.next_runs
    assert found.confidence is not None and found.confidence >= 0.8


def test_memory_forces_an_arm_although_the_evidence_is_too_short_for_any_other_answer() -> None:
    short = compare(full_minus_lift(lambda n: 0.0), sizes=SIZES[:3])
    found = verdict(short, limit=0.5)
    assert [gate.name for gate in found.failed_gates] == ["Dataset sizes"]
    assert (found.answer, found.arm) == ("memory", "lift")


def test_noise_leaves_not_enough_evidence() -> None:
    found = verdict(compare(full_minus_lift(lambda n: 0.0), noise=0.02, seed=3))
    assert found.answer == "not_enough_evidence"
    assert found.arm is None and found.confidence is None


def test_a_failed_gate_forbids_any_claim() -> None:
    found = verdict(compare(full_minus_lift(lambda n: 0.5), sizes=SIZES[:3]))
    assert found.answer == "not_enough_evidence"
    assert [gate.name for gate in found.failed_gates] == ["Dataset sizes"]
    assert found.next_runs and "dataset_sizes" in found.next_runs[0].change


@pytest.mark.parametrize(
    ("limit", "arm"), [(0.5, "lift"), (2.0, "full"), (0.1, None)], ids=["full-out", "both", "none"]
)
def test_memory_forces_an_arm_first(limit: float, arm: str | None) -> None:
    found = verdict(compare(full_minus_lift(lambda n: -0.05)), limit=limit)
    assert found.arm == arm
    gate = next(g for g in found.gates if g.name == "Memory")
    if limit == 0.5:
        assert (found.answer, found.confidence, gate.status) == ("memory", None, "warn")
        assert found.memory is not None and found.memory.value == pytest.approx(1 / 3)
    elif arm is None:
        assert (found.answer, gate.status) == ("not_enough_evidence", "fail")
    else:
        assert (found.answer, gate.status) == ("better", "pass")


def test_the_study_file_may_hold_the_limit_and_the_size() -> None:
    decision = {"dataset_size": 200, "memory_limit_gib": 0.5}
    results = compare(full_minus_lift(lambda n: -0.05), decision=decision)
    (found,) = summarise(results).verdicts
    assert (found.dataset_size, found.answer, found.arm) == (200, "memory", "lift")
    several = summarise(results, (100, 1600), 2.0).verdicts
    assert [(v.dataset_size, v.answer) for v in several] == [(100, "better"), (1600, "better")]


def test_an_arm_that_learned_nothing_is_never_recommended() -> None:
    nothing = compare(lambda arm, size: 4.63 if arm == "lift" else 4.0)
    assert verdict(nothing).answer == "not_enough_evidence"
    assert [g.name for g in verdict(nothing).failed_gates] == ["Learning"]
    assert verdict(nothing, limit=0.5).arm is None  # not even where it alone would fit


def test_nonsense_is_refused() -> None:
    results = compare(full_minus_lift(lambda n: 0.0))
    for size, limit in ((0, None), (-3, None), (100, 0.0), (100, -1.0)):
        with pytest.raises(ValueError, match="not positive"):
            verdict(results, size, limit)


def test_outside_of_the_tested_sizes_it_says_so_and_far_outside_nothing() -> None:
    evidence = gather_evidence(compare(full_minus_lift(lambda n: 0.05)))
    assert not decide(evidence, 1600).extrapolated
    near, far = decide(evidence, 2400), decide(evidence, 2401)
    assert near.extrapolated and near.answer == "better"
    assert far.answer == "not_enough_evidence"
    assert [g.name for g in far.failed_gates] == ["Asked size"]


def test_one_more_run_scatters_more_than_the_mean() -> None:
    found = verdict(compare(full_minus_lift(lambda n: 0.01), noise=0.005))
    assert found.one_run is not None and found.difference is not None
    assert (found.one_run.high or 0) > (found.difference.high or 0)


def test_forgetting_stands_beside_the_verdict_in_either_direction() -> None:
    results = compare(
        full_minus_lift(lambda n: -0.05),
        retention=lambda arm, size: 3.3 if arm == "full" else 3.1,
    )
    found = verdict(results)
    assert found.arm == "full" and found.retention is not None
    assert found.retention.difference.value == pytest.approx(0.2)
    assert found.retention.forgets["full"] == pytest.approx(1.0)
    assert found.retention.forgets["lift"] == pytest.approx(0.0)


def test_classification_has_accuracy_too() -> None:
    results = compare(
        full_minus_lift(lambda n: 0.05), accuracy=lambda arm, size: 0.8 if arm == "full" else 0.9
    )
    found = verdict(results)
    assert found.accuracy is not None and found.accuracy.low is not None
    assert found.accuracy.value == pytest.approx(0.1)
    # 80 examples of which the arms get 30 % wrong between them: an error of at most 6 points.
    assert found.accuracy.value - found.accuracy.low == pytest.approx(
        1.99 * math.sqrt(0.3 / 80), rel=0.05
    )


def test_the_grid_reaches_as_far_as_verdicts_do() -> None:
    grid = summarise(compare(full_minus_lift(lambda n: 0.05))).grid
    sizes = [v.dataset_size for v in grid]
    assert sizes == sorted(set(sizes)) and set(SIZES) <= set(sizes)
    assert sizes[0] == 67 and sizes[-1] == 2400 and len(sizes) > 50
    assert all(v.arm == "lift" for v in grid)


def test_a_study_without_confirm_runs_or_of_one_arm_has_no_verdict_and_no_error() -> None:
    results = compare(full_minus_lift(lambda n: 0.05))
    search = tuple(t for t in results.trials if t.spec.stage == "search")
    bare = StudyResults(results.config, search, results.base)
    (found,) = summarise(bare).verdicts
    assert found.answer == "not_enough_evidence" and found.difference is None
    assert summarise(bare).grid == ()
    alone = compare(full_minus_lift(lambda n: 0.05), arms=["full"])
    assert summarise(alone).verdicts == ()


def test_confirm_runs_that_diverge_score_the_base_loss() -> None:
    results = compare(full_minus_lift(lambda n: 0.05))
    lost = [t for t in results.trials if t.spec.trial_id == "lift-n400-r0-c0"]
    assert lost[0].outcome is not None
    bad = dataclasses.replace(
        lost[0],
        state=TrialState.FAIL,
        outcome=dataclasses.replace(
            lost[0].outcome, status="diverged", test_loss=None, test_losses=()
        ),
    )
    trials = tuple(bad if t is lost[0] else t for t in results.trials)
    summary = summarise(StudyResults(results.config, trials, results.base))
    replicate = summary.cell("lift", 400).replicates[0]
    assert (replicate.confirm_diverged, replicate.confirm_failed) == (1, 0)
    assert replicate.test_losses[0] == pytest.approx(4.63)
    assert summary.curve is not None and len(summary.curve.paired.differences) == 20
    assert summary.curve.paired.differences[8] < -0.2
