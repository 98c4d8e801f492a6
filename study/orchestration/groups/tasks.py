"""What the switchboard knows of a task, and of a worker group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
"""``kind`` is ``measured`` (with a `Measurement`), ``ended`` (with ``outcome``), or
``interrupted``; ``job`` names the Ray Train run."""


@dataclass
class Task:
    """One trial (or the baseline), from its submission to the end of its last attempt."""

    task_id: str
    payload: dict[str, Any]
    wants_verdicts: bool
    events: list[Event] = field(default_factory=list)
    verdicts: dict[int, bool] = field(default_factory=dict)
    job: str = ""
    began: float = 0.0
    attempt: int = 0
    retries: int = 0
    micro_batch_size: int | None = None
    stopped: bool = False
    failure: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    reported_step: int = 0

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1]["kind"] != "measured"


@dataclass
class Group:
    """One Ray Train run.

    Attributes:
        asked, ready: when it was asked for, and when its workers were up.
        taken: tasks so far.
        tasks: the last two by number, from 0, and any before that it still works on; a rank may
            be one behind the others.
        took: seconds of the last one that ended.
        retired: it takes no more.
        refused: why no group of this study can work as it is set up; empty otherwise.
    """

    name: str
    asked: float
    ready: float | None = None
    taken: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    took: float = 0.0
    retired: bool = False
    refused: str = ""

    def works_on(self, task: Task) -> bool:
        """Whether it has yet to say how the task ended."""
        return task.job == self.name and not task.has_ended

    @property
    def unfinished(self) -> list[Task]:
        """What it works on; two, if some of its ranks are still busy with the one before."""
        return [task for task in self.tasks.values() if self.works_on(task)]
