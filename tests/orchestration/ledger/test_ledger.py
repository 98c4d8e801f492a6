"""The study protocol on a real store, without Ray."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from study.orchestration.ledger import ledger as ledger_module
from study.protocol.plan import cell_of
from study.protocol.records import Stage, TrialOutcome, TrialSpec, TrialState
from study.store.study_store import StudyStore
from tests.orchestration.ledgers import (
    SEARCHES,
    loss_of,
    make_ledger,
    make_plan,
    outcomes,
    run_all,
    train,
)


def test_every_search_and_confirm_trial_runs_once(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    started = run_all(make_ledger(plan))
    assert len(started) == len({s.trial_id for s in started}) == plan.trials == 12 + 8
    assert {s for s, *_ in outcomes(plan).values()} == {TrialState.COMPLETE}


def test_confirm_trials_come_as_soon_as_their_replicate_has_a_winner(tmp_path: Path) -> None:
    started = run_all(make_ledger(make_plan(tmp_path), concurrent=1))
    position = {s.trial_id: i for i, s in enumerate(started)}
    assert position["full-n64-r0-c0"] < position["full-n128-r0-s0"]


def test_the_winner_is_retrained_with_its_own_hyperparameters(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    run_all(make_ledger(plan))
    for cell in plan.cells:
        search = [s for s in plan.search if cell_of(s) == cell]
        best = min(search, key=lambda s: loss_of(s, s.steps))
        store = StudyStore.open(plan.resolved.database_url)
        for record in store.records(cell, Stage.CONFIRM).values():
            assert record.spec.hyperparameters == best.hyperparameters


def test_a_pruner_is_not_asked_about_a_trial_that_has_made_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(make_plan(tmp_path, pruner="median"))
    spec = ledger.next()
    assert spec is not None
    asked = []
    monkeypatch.setattr(ledger_module, "is_pruned", lambda _, s, __: asked.append(s) or False)
    train(ledger, spec)
    assert len(asked) == len(spec.evaluation_steps) - 1 == 3


@pytest.mark.parametrize(("sampler", "pruner"), SEARCHES)
def test_the_outcome_is_the_same_at_any_concurrency(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    found = []
    for concurrent in (1, 5):
        plan = make_plan(tmp_path / str(concurrent), sampler=sampler, pruner=pruner, trials=5)
        run_all(make_ledger(plan, concurrent), random.Random(concurrent))
        found.append(outcomes(plan))
    assert found[0] == found[1]


@pytest.mark.parametrize("sampler", ["sobol", "tpe", "random"])
def test_a_study_killed_between_trials_ends_as_an_uninterrupted_one(
    tmp_path: Path, sampler: str
) -> None:
    whole = make_plan(tmp_path / "whole", sampler=sampler)
    run_all(make_ledger(whole))
    killed = make_plan(tmp_path / "killed", sampler=sampler)
    for trials in (2, 5, 1):  # each time a new driver, the last trial handed out and lost
        ledger = make_ledger(killed)
        for _ in range(trials):
            spec = ledger.next()
            assert spec is not None
            train(ledger, spec)
        ledger.next()
    run_all(make_ledger(killed))
    assert outcomes(killed) == outcomes(whole)


def test_successive_halving_stops_some_trials_and_never_confirm_trials(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, pruner="asha", trials=6)
    run_all(make_ledger(plan, concurrent=1))
    states = {k: s for k, (s, *_) in outcomes(plan).items()}
    assert TrialState.PRUNED in states.values()
    assert all(s is TrialState.COMPLETE for k, s in states.items() if "-c" in k)


def test_trials_run_in_sequence_in_a_cell_when_suggestions_depend_on_results(
    tmp_path: Path,
) -> None:
    ledger = make_ledger(make_plan(tmp_path, sampler="tpe"))
    handed = []
    while (spec := ledger.next()) is not None:
        handed.append(cell_of(spec))
    assert len(handed) == len(set(handed)) == 4
    assert not ledger.has_nothing_to_start


@pytest.mark.parametrize(
    "outcome",
    [
        TrialOutcome("diverged", reason="NaN at step 3", score=0.001),
        TrialOutcome("error", reason="boom"),
        TrialOutcome("finished", score=float("inf")),
        None,
    ],
)
def test_a_trial_that_did_not_finish_with_a_finite_loss_fails(
    tmp_path: Path, outcome: TrialOutcome | None
) -> None:
    plan = make_plan(tmp_path)
    ledger = make_ledger(plan)
    spec = ledger.next()
    assert spec is not None
    ledger.ended(spec.trial_id, outcome)
    record = ledger.store.record(spec)
    assert record is not None and record.state is TrialState.FAIL
    assert record.outcome is not None


def test_a_replicate_whose_trials_all_fail_has_no_confirm_trials(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    ledger = make_ledger(plan)
    while (spec := ledger.next()) is not None:
        ledger.ended(spec.trial_id, TrialOutcome("diverged", reason="NaN"))
    assert ledger.is_done and ledger.has_nothing_to_start


def test_a_finished_study_has_nothing_to_start(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    run_all(make_ledger(plan))
    again = make_ledger(plan)
    assert again.is_done and again.next() is None


def test_no_more_trials_run_than_asked_for(tmp_path: Path) -> None:
    ledger = make_ledger(make_plan(tmp_path), concurrent=2)
    handed: Sequence[TrialSpec | None] = [ledger.next() for _ in range(3)]
    assert handed[2] is None and None not in handed[:2]
    assert not ledger.has_nothing_to_start


def test_the_last_trial_that_runs_may_be_lost_and_start_again(tmp_path: Path) -> None:
    """Tune asks no more once it has been told that nothing is left to start."""
    ledger = make_ledger(make_plan(tmp_path))
    while not ledger.is_done:
        last = ledger.next()
        assert last is not None and not ledger.has_nothing_to_start
        if not (ledger.backlog - 1):  # nothing else waits
            assert not ledger.lost(last.trial_id)
            assert ledger.next() == last and not ledger.has_nothing_to_start
        ledger.ended(last.trial_id, TrialOutcome("finished", score=1.0))
    assert ledger.has_nothing_to_start


def test_what_may_not_start_is_no_backlog(tmp_path: Path) -> None:
    ledger = make_ledger(make_plan(tmp_path), concurrent=1)
    assert ledger.next() is not None and ledger.backlog > 1
    ledger.pause()
    assert ledger.backlog == 1
