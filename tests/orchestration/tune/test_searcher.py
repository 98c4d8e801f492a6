"""Tune goes on after any failure: what it tells of trials is booked, or the study stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.basics.errors import StorageLostError
from study.basics.paths import StudyPaths
from study.orchestration.observer import QuietObserver
from study.orchestration.tune.searcher import PlanSearcher
from study.protocol.records import Stage, TrialOutcome, TrialState
from tests.orchestration.ledgers import make_ledger, make_plan, train

END = {"job": "j", "outcome": json.dumps(TrialOutcome("finished", score=1.0).to_dict())}


class Pool:
    """Takes every task."""

    name, broken, has_given_up = "switchboard", "", False

    def follow(self, backlog: int) -> int:
        return 100

    def submit(self, *_: Any) -> None:
        pass

    def forget(self, task_id: str) -> None:
        pass


def test_an_end_that_cannot_be_booked_stops_the_study_and_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(make_plan(tmp_path))
    searcher = PlanSearcher(ledger, Pool())  # type: ignore[arg-type]
    task = searcher.suggest("tune-1")
    assert isinstance(task, dict)
    checkpoint = StudyPaths(tmp_path).checkpoint(task["task_id"])
    checkpoint.mkdir(parents=True)

    def lost(*_: Any) -> None:
        raise StorageLostError("away")

    monkeypatch.setattr(ledger.store, "finish", lost)
    with pytest.raises(StorageLostError):
        searcher.on_trial_complete("tune-1", END)
    searcher.on_trial_complete("tune-1", error=True)  # as Tune does then
    assert checkpoint.is_dir() and not ledger.is_done
    with pytest.raises(StorageLostError):
        searcher.suggest("tune-2")
    again = make_ledger(ledger.plan)
    spec = again.next()
    assert spec is not None and spec.trial_id == task["task_id"]


def test_a_terminal_that_is_gone_costs_no_confirm_trial(tmp_path: Path) -> None:
    class Gone(QuietObserver):
        def finished(self, *_: Any) -> None:
            raise BrokenPipeError

    plan = make_plan(tmp_path, sections={"dataset_sizes": [64], "arms": ["full"]}, trials=1)
    ledger = make_ledger(plan, observer=Gone())
    first = ledger.next()
    assert first is not None
    with pytest.raises(BrokenPipeError):
        train(ledger, first)
    record = ledger.store.record(first)
    assert record is not None and record.state is TrialState.COMPLETE
    second = ledger.next()
    assert second is not None and second.stage is Stage.CONFIRM
