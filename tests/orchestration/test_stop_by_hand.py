"""`study stop`: one trial is skipped or stopped, counts as failed, and the study goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from study.orchestration.ledger.ledger import Ledger
from study.protocol.records import TrialOutcome, TrialRecord, TrialSpec, TrialState
from study.store.study_store import StudyStore
from tests.helpers.stores import measurement
from tests.orchestration.ledgers import loss_of, make_ledger, make_plan, outcomes, run_all, train


def record_of(ledger: Ledger, trial_id: str) -> TrialRecord:
    return next(r for r in ledger.store.results().trials if r.spec.trial_id == trial_id)


def evaluate(ledger: Ledger, spec: TrialSpec, number: int) -> bool:
    step = spec.evaluation_steps[number]
    return ledger.measured(spec.trial_id, measurement(step, loss_of(spec, step)))


def reason(record: TrialRecord) -> str:
    assert record.outcome is not None
    return record.outcome.reason


@pytest.fixture
def hurried() -> Callable[[], float]:
    """A clock on which the store may be read again at every call."""
    now = [time.time()]

    def clock() -> float:
        now[0] += 10
        return now[0]

    return clock


def test_a_waiting_trial_is_skipped_when_its_turn_comes(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    ledger = make_ledger(plan)
    StudyStore.open(plan.resolved.database_url).request_stop("full-n64-r0-s1")
    started = run_all(ledger)
    assert "full-n64-r0-s1" not in {s.trial_id for s in started}
    record = record_of(ledger, "full-n64-r0-s1")
    assert record.state is TrialState.FAIL and reason(record) == "skipped by hand"
    assert record.measurements == ()
    states = [state for state, *_ in outcomes(plan).values()]
    assert states.count(TrialState.COMPLETE) == plan.trials - 1
    assert ledger.store.stop_requests() == frozenset()


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_skipping_every_search_trial_of_a_replicate_leaves_it_without_confirm_trials(
    tmp_path: Path, sampler: str
) -> None:
    plan = make_plan(tmp_path, sampler=sampler)
    ledger = make_ledger(plan)
    for index in range(3):
        ledger.store.request_stop(f"lift-n128-r0-s{index}")
    assert len(run_all(ledger)) == plan.trials - 3 - 2
    assert ledger.is_done and ledger.has_nothing_to_start


def test_a_confirm_trial_can_be_skipped_before_its_winner_is_known(tmp_path: Path) -> None:
    ledger = make_ledger(make_plan(tmp_path))
    ledger.store.request_stop("full-n64-r0-c1")
    run_all(ledger)
    assert record_of(ledger, "full-n64-r0-c0").state is TrialState.COMPLETE
    assert record_of(ledger, "full-n64-r0-c1").state is TrialState.FAIL


def test_a_running_trial_is_stopped_at_its_next_evaluation(
    tmp_path: Path, hurried: Callable[[], float]
) -> None:
    ledger = make_ledger(make_plan(tmp_path), clock=hurried)
    spec = ledger.next()
    assert spec is not None
    assert evaluate(ledger, spec, 0)
    ledger.store.request_stop(spec.trial_id)
    assert not evaluate(ledger, spec, 1)
    ledger.ended(spec.trial_id, None)  # what Tune knows of a trial it stopped
    record = record_of(ledger, spec.trial_id)
    assert record.state is TrialState.FAIL and reason(record) == "stopped by hand"
    assert len(record.measurements) == 2
    run_all(ledger)
    assert ledger.is_done


def test_a_stopped_trial_fails_though_its_workers_still_tell_an_outcome(
    tmp_path: Path, hurried: Callable[[], float]
) -> None:
    ledger = make_ledger(make_plan(tmp_path), clock=hurried)
    spec = ledger.next()
    assert spec is not None
    ledger.store.request_stop(spec.trial_id)
    assert not evaluate(ledger, spec, 3)  # even at its last evaluation
    told = TrialOutcome("finished", score=0.1, best_step=40, device_seconds=12.0)
    ledger.ended(spec.trial_id, told)
    record = record_of(ledger, spec.trial_id)
    assert record.state is TrialState.FAIL and reason(record) == "stopped by hand"
    assert record.outcome is not None and record.outcome.device_seconds == 12.0


def test_a_stopped_trial_never_wins(tmp_path: Path, hurried: Callable[[], float]) -> None:
    plan = make_plan(tmp_path)
    ledger = make_ledger(plan, clock=hurried)
    best = min(
        (s for s in plan.search if (s.arm, s.size) == ("full", 64)),
        key=lambda s: loss_of(s, s.steps),
    )
    while (spec := ledger.next()) is not None:
        if spec.trial_id == best.trial_id:
            ledger.store.request_stop(spec.trial_id)
        train(ledger, spec)
    confirmed = record_of(ledger, "full-n64-r0-c0").spec
    assert confirmed.hyperparameters != best.hyperparameters


def test_a_request_that_comes_too_late_is_withdrawn(tmp_path: Path) -> None:
    ledger = make_ledger(make_plan(tmp_path))
    spec = ledger.next()
    assert spec is not None
    for number in range(4):
        assert evaluate(ledger, spec, number)
    ledger.store.request_stop(spec.trial_id)  # after its last evaluation
    ledger.ended(spec.trial_id, TrialOutcome("finished", score=0.5, best_step=40))
    assert record_of(ledger, spec.trial_id).state is TrialState.COMPLETE
    assert ledger.store.stop_requests() == frozenset()


def test_a_trial_that_was_killed_while_it_ran_counts_as_stopped_not_as_skipped(
    tmp_path: Path,
) -> None:
    plan = make_plan(tmp_path)
    killed = make_ledger(plan)
    spec = killed.next()
    assert spec is not None
    evaluate(killed, spec, 0)
    killed.store.request_stop(spec.trial_id)
    again = make_ledger(plan)
    assert spec.trial_id not in {s.trial_id for s in run_all(again)}
    assert reason(record_of(again, spec.trial_id)) == "stopped by hand"


def test_the_store_is_read_at_most_every_two_seconds(tmp_path: Path) -> None:
    now = [1000.0]
    ledger = make_ledger(make_plan(tmp_path), clock=lambda: now[0])
    assert not ledger.stop_requested("full-n64-r0-s0")
    ledger.store.request_stop("full-n64-r0-s0")
    now[0] += 1.9
    assert not ledger.stop_requested("full-n64-r0-s0")
    now[0] += 0.2
    assert ledger.stop_requested("full-n64-r0-s0")


def test_a_skip_is_not_inherited_by_another_winners_confirm_trial(tmp_path: Path) -> None:
    small = make_ledger(make_plan(tmp_path))
    small.store.request_stop("full-n64-r0-c0")
    run_all(small)
    skipped = record_of(small, "full-n64-r0-c0")
    assert skipped.state is TrialState.FAIL
    large = make_ledger(make_plan(tmp_path, trials=8))
    run_all(large)
    record = record_of(large, "full-n64-r0-c0")
    assert record.spec.hyperparameters != skipped.spec.hyperparameters
    assert record.state is TrialState.COMPLETE
