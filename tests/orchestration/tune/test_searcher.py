"""Tune goes on after any failure: what it tells of trials is booked, or the study stops."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from study.basics.errors import StorageLostError
from study.basics.paths import StudyPaths
from study.orchestration.ledger import ledger as ledger_module
from study.orchestration.observer import QuietObserver
from study.orchestration.tune.driver import Driver
from study.orchestration.tune.scheduler import PrunerScheduler
from study.orchestration.tune.searcher import PlanSearcher
from study.protocol.records import Stage, TrialOutcome, TrialState
from tests.helpers.stores import measurement
from tests.orchestration.ledgers import make_ledger, make_plan, train

END = {"job": "j", "outcome": TrialOutcome("finished", score=1.0)}


class Pool:
    """Takes every task."""

    name, broken, has_given_up = "switchboard", "", False

    def __init__(self) -> None:
        self.room, self.backlogs = 100, list[int]()
        self.verdicts = list[tuple[str, int, bool]]()

    def follow(self, backlog: int) -> int:
        self.backlogs.append(backlog)
        return self.room

    def submit(self, *_: Any) -> None:
        pass

    def forget(self, task_id: str) -> None:
        pass

    def decide(self, *verdict: Any) -> None:
        self.verdicts.append(verdict)


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
        Driver(searcher).tick()
    again = make_ledger(ledger.plan)
    spec = again.next()
    assert spec is not None and spec.trial_id == task["task_id"]


def test_room_and_giving_up_are_the_ticks_business_and_suggesting_asks_for_neither(
    tmp_path: Path,
) -> None:
    ledger, pool = make_ledger(make_plan(tmp_path)), Pool()
    searcher = PlanSearcher(ledger, pool)  # type: ignore[arg-type]
    driver = Driver(searcher)
    pool.room = 1
    driver.tick()
    assert isinstance(searcher.suggest("tune-1"), dict) and searcher.suggest("tune-2") is None
    assert len(pool.backlogs) == 1
    pool.room, pool.has_given_up = 2, True
    driver.tick()
    assert ledger.is_paused and searcher.suggest("tune-2") == "FINISHED"


@pytest.mark.parametrize("goes_on", [True, False])
def test_every_evaluation_gets_its_verdict_as_a_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    ledger, pool = make_ledger(make_plan(tmp_path, pruner="median")), Pool()
    searcher = PlanSearcher(ledger, pool)  # type: ignore[arg-type]
    task = searcher.suggest("tune-1")
    assert isinstance(task, dict)
    monkeypatch.setattr(ledger_module, "is_pruned", lambda *_: not goes_on)
    trial: Any = SimpleNamespace(trial_id="tune-1")
    result = {"job": "j", "measurement": measurement(10, 2.0)}
    decision = PrunerScheduler(searcher).on_trial_result(None, trial, result)
    assert pool.verdicts == [(task["task_id"], 10, goes_on)]
    assert decision == (TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


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
