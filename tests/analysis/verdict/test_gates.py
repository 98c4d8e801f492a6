"""Every gate fails where it must, and only there."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from study.analysis import Gate, decide, plan_gates
from study.analysis.summary import gather_evidence
from study.analysis.verdict.gates import bracket, last_fall
from study.protocol.records import Stage, TrialState
from study.protocol.results import StudyResults
from tests.analysis.comparisons import BASE, SIZES, compare, full_minus_lift
from tests.helpers.results import make_config

EVEN = full_minus_lift(lambda n: 0.02)


def gates_of(results: StudyResults, size: int = 400) -> dict[str, Gate]:
    return {g.name: g for g in decide(gather_evidence(results), size, with_next_runs=False).gates}


def failed(results: StudyResults, size: int = 400) -> list[str]:
    return [name for name, gate in gates_of(results, size).items() if gate.status == "fail"]


def test_a_sound_study_passes_all() -> None:
    gates = gates_of(compare(EVEN))
    assert list(gates) == [
        "Arms", "Dataset sizes", "Asked size", "Confirm runs", "Trial counts", "Search length",
        "Learning", "Learning rate range", "Training length", "Curve", "Divergence", "Test split",
    ]  # fmt: skip
    assert {gate.status for gate in gates.values()} == {"pass"}
    assert all(gate.found and gate.needed and not gate.remedy for gate in gates.values())


@pytest.mark.parametrize(
    ("changes", "size", "names"),
    [
        ({}, 400, []),
        ({"arms": ["lift"]}, 400, ["Arms"]),
        ({"sizes": [100, 200, 800]}, 400, ["Dataset sizes"]),
        ({"sizes": [100, 200, 300, 799]}, 400, ["Dataset sizes"]),
        ({"sizes": [100, 200, 300, 800]}, 400, []),
        ({"replicates": 2, "confirm_seeds": 3}, 400, ["Confirm runs"]),
        ({"replicates": 3, "confirm_seeds": 1}, 400, ["Confirm runs"]),
        ({"replicates": 6, "confirm_seeds": 1}, 400, []),
        ({"confirm_seeds": 0}, 400, ["Confirm runs"]),
        ({}, 2400, []),
        ({}, 2401, ["Asked size"]),
        ({}, 66, ["Asked size"]),
    ],
)
def test_the_study_file_alone_decides_some(
    changes: dict[str, Any], size: int, names: list[str]
) -> None:
    gates = plan_gates(make_config(**({"sizes": SIZES} | changes)), size)
    assert [gate.name for gate in gates if gate.status == "fail"] == names
    assert all(gate.from_plan for gate in gates)
    assert all(bool(gate.remedy) == (gate.status != "pass") for gate in gates)


def test_an_asked_size_outside_is_marked() -> None:
    by_name = {gate.name: gate for gate in plan_gates(make_config(sizes=SIZES), 2000)}
    assert by_name["Asked size"].status == "warn"
    assert "extrapolated" in by_name["Asked size"].found


def test_the_sizes_next_to_the_asked_one() -> None:
    assert bracket([100, 200, 400], 200) == (200,)
    assert bracket([100, 200, 400], 250) == (200, 400)
    assert bracket([100, 200, 400], 50) == (100,)
    assert bracket([100, 200, 400], 900) == (400,)
    assert bracket([], 900) == ()


def test_unfinished_or_unequal_searches() -> None:
    results = compare(EVEN)
    waiting = [
        dataclasses.replace(t, state=TrialState.WAITING, outcome=None, measurements=())
        if t.spec.trial_id == "lift-n400-r0-s1"
        else t
        for t in results.trials
    ]
    names = failed(dataclasses.replace(results, trials=tuple(waiting)))
    assert "Trial counts" in names
    assert "Trial counts" not in failed(dataclasses.replace(results, trials=tuple(waiting)), 100)
    fewer = tuple(t for t in results.trials if t.spec.trial_id != "lift-n400-r0-s1")
    assert failed(dataclasses.replace(results, trials=fewer)) == ["Trial counts"]


def test_what_the_file_has_already_is_waited_for_and_not_added() -> None:
    results = compare(EVEN, replicates=3)
    largest = max(SIZES)

    def without_largest(state: TrialState) -> str:
        trials = [
            dataclasses.replace(t, state=state, outcome=None, measurements=())
            if t.spec.size == largest
            else t
            for t in results.trials
            if t.spec.size != largest or t.spec.stage is Stage.SEARCH
        ]
        found = gates_of(dataclasses.replace(results, trials=tuple(trials)), largest)["Asked size"]
        assert found.status == "fail"
        return found.remedy

    pending = without_largest(TrialState.WAITING)
    assert pending == "Let the study go on: `study run` continues it."
    assert "Runs that the study file has failed" in without_largest(TrialState.FAIL)
    assert (
        f"Add {4 * largest} to `dataset_sizes`."
        == gates_of(results, 4 * largest)["Asked size"].remedy
    )
    small = gates_of(compare(EVEN, replicates=2))["Confirm runs"]
    assert small.remedy == "Raise `search.replicates` or `confirm.seeds`."


def test_confirm_runs_that_exist_count_and_not_those_that_were_planned() -> None:
    results = compare(EVEN, replicates=3)
    missing = {"full-n400-r0-c0", "lift-n400-r2-c1"}
    fewer = tuple(t for t in results.trials if t.spec.trial_id not in missing)
    gates = gates_of(dataclasses.replace(results, trials=fewer))
    assert gates["Confirm runs"].status == "fail"
    assert "3 replicates and 4 pairs at 400" in gates["Confirm runs"].found


def test_learning_is_measured_against_rho() -> None:
    assert failed(compare(lambda arm, size: BASE.test_loss - 0.05)) == []
    assert failed(compare(lambda arm, size: BASE.test_loss - 0.005)) == ["Learning"]
    assert failed(compare(lambda arm, size: 4.0 if arm == "full" else 4.7)) == ["Learning"]
    results = compare(EVEN)
    assert failed(dataclasses.replace(results, base=None)) == ["Learning"]


def test_winners_at_an_end_of_the_learning_rates() -> None:
    """The range is 2e-5 to 5e-5: its outer tenths end at 2.19e-5 and begin at 4.56e-5."""
    assert failed(compare(EVEN, rates={"full": 2.2e-5, "lift": 4.5e-5})) == []
    for rates in ({"full": 2.1e-5, "lift": 3e-5}, {"full": 3e-5, "lift": 4.6e-5}):
        assert failed(compare(EVEN, rates=rates)) == ["Learning rate range"]
    both = compare(EVEN, rates={"full": 4.9e-5, "lift": 4.9e-5})
    gate = gates_of(both)["Learning rate range"]
    assert gate.status == "warn" and "20 of 20 winners in the highest tenth" in gate.found
    found = decide(gather_evidence(both), 400)
    assert found.within_range and found.answer == "better"


def test_training_that_was_cut_short() -> None:
    # 0.03 nats over the last fifth are 0.015 over the last tenth.
    assert failed(compare(EVEN, falling=0.03)) == ["Training length"]
    assert failed(compare(EVEN, falling=0.018)) == []
    # Each size is judged: between 200 and 400 the mean is within rho, and 400 alone is not.
    assert failed(compare(EVEN, falling={400: 0.03}), 280) == ["Training length"]
    assert failed(compare(EVEN, falling={800: 0.03}), 280) == []
    gate = gates_of(compare(EVEN, falling={400: 0.03}), 280)["Training length"]
    assert "LIFT: +0.0150 nats at 400" in gate.found
    run = next(t for t in compare(EVEN, falling=0.03).trials if t.spec.stage is Stage.CONFIRM)
    assert last_fall(run) == pytest.approx(0.015)
    assert last_fall(dataclasses.replace(run, measurements=run.measurements[:1])) is None


def test_a_difference_that_no_simple_curve_follows() -> None:
    jagged = full_minus_lift(lambda n: 0.2 if n in (200, 800) else 0.1)
    assert failed(compare(jagged)) == ["Curve"]
    # The same within half of rho, however sure: it would change no decision.
    slight = full_minus_lift(lambda n: 0.104 if n in (200, 800) else 0.1)
    assert failed(compare(slight, noise=1e-5)) == []
    # The same within the scatter of replicates.
    assert failed(compare(jagged, noise=0.3, replicates=8)) != ["Curve"]


def test_an_arm_that_diverges_more_often() -> None:
    # Five of seven lost: whether any of the others is drawn is luck as well.
    names = ["Trial counts", "Search length", "Divergence"]
    assert failed(compare(EVEN, diverged={"lift": 5})) == names
    gate = gates_of(compare(EVEN, diverged={"full": 5, "lift": 5}))["Divergence"]
    assert gate.status == "pass"
    assert "24 % of 105" in gate.found


def test_a_small_test_split_warns() -> None:
    results = compare(EVEN, noise=0.2)
    gate = gates_of(results)["Test split"]
    assert gate.status == "warn" and "80 examples" in gate.found
    error = float(gate.found.split()[2])
    # Its examples' noise is independent from run to run here, so of 40 pairs much averages out.
    assert 0.2 * math.sqrt(2 / 80) / math.sqrt(40) < error < 0.2 * math.sqrt(2 / 80)
