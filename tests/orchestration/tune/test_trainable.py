"""The process that stands for a trial in Tune, and what it tells the switchboard."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from study.orchestration.tune.trainable import StudyTrial

CONFIG = {"switchboard": "s", "task_id": "lift-n24-r0-s1"}


class Told:
    """A switchboard that keeps what it is told, and has an evaluation whenever it is asked."""

    def __init__(self) -> None:
        self.calls = list[tuple[Any, ...]]()

    def __getattr__(self, name: str) -> Any:
        class Remote:
            @staticmethod
            def remote(*arguments: Any) -> dict[str, Any]:
                self.calls.append((name, *arguments))
                return {"kind": "measured", "job": "j", "measurement": {"step": 4}}

        return Remote


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(ray, "get_actor", lambda _: told)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    return told


def test_a_trial_that_tune_stops_is_stopped_with_the_verdict_it_waited_for(told: Told) -> None:
    trial = StudyTrial(CONFIG)
    trial.step()
    trial.cleanup()
    task = CONFIG["task_id"]
    assert told.calls == [("next_event", task, 0), ("decide", task, 4, False), ("stop", task)]


@pytest.mark.parametrize("call", ["decide", "next_event"])
def test_a_call_that_fails_stops_no_task(
    told: Told, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Tune cleans up after it, and the trial is handed out again."""

    def get(answer: Any) -> Any:
        if told.calls[-1][0] == call:
            raise RayError
        return answer

    trial = StudyTrial(CONFIG)
    trial.step()
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(RayError):
        trial.step()
    trial.cleanup()
    task = CONFIG["task_id"]
    assert ("decide", task, 4, True) in told.calls
    assert ("decide", task, 4, False) not in told.calls and ("stop", task) not in told.calls


def test_a_process_that_tune_no_longer_needs_leaves_the_trial_to_the_other_one(told: Told) -> None:
    """Tune asks for a process per trial; one that becomes free earlier takes the trial over."""
    spare, other = StudyTrial(CONFIG), StudyTrial(CONFIG | {"task_id": "full-n24-r0-s0"})
    other.reset_config(dict(CONFIG))
    other.step()
    spare.cleanup()
    assert not [call for call in told.calls if call[0] == "stop"]
