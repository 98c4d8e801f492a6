"""The thin Tune trainable: passes on to Tune what the switchboard knows of a trial."""

from __future__ import annotations

import json
from typing import Any

import ray
from ray import tune


class StudyTrial(tune.Trainable):
    """One Tune trial after another. It trains nothing itself; its worker group does.

    Its configuration names the switchboard and a task there. Its results hold a ``measurement``
    or, in the last one, an ``outcome`` as JSON (Tune flattens nested dictionaries wherever it
    meets them), or ``interrupted``; and the ``job`` that trains it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._switchboard = ray.get_actor(config["switchboard"])
        self._task_id = config["task_id"]
        self._events = 0
        self._asked_at: int | None = None  # the step of an evaluation that waits for its verdict

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial over."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next evaluation, or the end. To be asked for it is a verdict: Tune's
        scheduler lets the trial go on.

        Where this raises, Tune cleans up, and the trial is handed out again: its task goes on.
        """
        asked_at, self._asked_at = self._asked_at, None
        if asked_at is not None:
            ray.get(self._switchboard.decide.remote(self._task_id, asked_at, True))
        event = ray.get(self._switchboard.next_event.remote(self._task_id, self._events))
        self._events += 1
        result = {"job": event["job"]}
        if event["kind"] == "measured":
            self._asked_at = event["measurement"]["step"]
            return result | {"measurement": json.dumps(event["measurement"])}
        if event["kind"] == "interrupted":
            return result | {"interrupted": True, "done": True}
        return result | {"outcome": json.dumps(event["outcome"]), "done": True}

    def cleanup(self) -> None:
        """Tune has stopped the trial, or it has ended by itself.

        A process that Tune asked for and no longer needs, since another one became free before it
        had started, is stopped too: the trial then goes on in the other one.
        """
        if self._asked_at is None:
            return
        self._switchboard.decide.remote(self._task_id, self._asked_at, False)
        self._switchboard.stop.remote(self._task_id)
        self._asked_at = None
