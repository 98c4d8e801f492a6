"""The thin Tune trainable: passes on to Tune what the switchboard knows of a trial."""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from study.protocol.records import TrialOutcome


class StudyTrial(tune.Trainable):
    """One Tune trial after another. It trains nothing itself; its worker group does. It only asks:
    to end it, whatever the cause, changes nothing of its task.

    Its configuration names the switchboard and a task there. Its results hold a ``measurement``
    or, in the last one, an ``outcome`` (records, for Tune flattens nested dictionaries wherever it
    meets them), or ``interrupted``; and the ``job`` that trains it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._switchboard = ray.get_actor(config["switchboard"])
        self._task_id = config["task_id"]
        self._events = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial over."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next evaluation, or the end.

        Where this raises, the trial is handed out again: its task goes on.
        """
        event = ray.get(self._switchboard.next_event.remote(self._task_id, self._events))
        self._events += 1
        result = {"job": event["job"]}
        if event["kind"] == "measured":
            return result | {"measurement": event["measurement"]}
        if event["kind"] == "interrupted":
            return result | {"interrupted": True, "done": True}
        return result | {"outcome": TrialOutcome.from_dict(event["outcome"]), "done": True}
