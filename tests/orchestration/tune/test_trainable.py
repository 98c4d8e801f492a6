"""The process that stands for a trial in Tune: it asks the switchboard, and tells it nothing."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from study.orchestration.tune.trainable import StudyTrial
from study.protocol.records import TrialOutcome
from tests.helpers.stores import measurement

CONFIG = {"switchboard": "s", "task_id": "lift-n24-r0-s1"}
MEASURED = {"kind": "measured", "job": "j", "measurement": measurement(4, 2.0)}
ENDED = {"kind": "ended", "job": "j", "outcome": {"status": "stopped"}}


class Told:
    """A switchboard that keeps what it is told, and has an evaluation, then an end."""

    def __init__(self) -> None:
        self.calls = list[tuple[Any, ...]]()

    def __getattr__(self, name: str) -> Any:
        class Remote:
            @staticmethod
            def remote(*arguments: Any) -> dict[str, Any]:
                self.calls.append((name, *arguments))
                return ENDED if arguments[-1] else MEASURED

        return Remote


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(ray, "get_actor", lambda _: told)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    return told


def test_records_pass_through_as_they_are(told: Told) -> None:
    trial = StudyTrial(CONFIG)
    assert trial.step() == {"job": "j", "measurement": measurement(4, 2.0)}
    assert trial.step() == {"job": "j", "outcome": TrialOutcome("stopped"), "done": True}


def test_one_that_tune_stops_asks_again_or_fails_decides_nothing(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts are the driver's. Of two processes that Tune asked for, one takes the other's trial
    over, and the spare one is stopped while the task goes on."""

    def fail(answer: Any) -> Any:
        raise RayError

    spare, other = StudyTrial(CONFIG), StudyTrial(CONFIG | {"task_id": "full-n24-r0-s0"})
    spare.step()
    assert other.reset_config(dict(CONFIG))
    other.step()
    spare.stop()
    monkeypatch.setattr(ray, "get", fail)
    with pytest.raises(RayError):
        other.step()
    other.stop()
    assert {name for name, *_ in told.calls} == {"next_event"}
