"""What may change in a study file once there are results: the study may grow, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from study.basics.errors import StoreError
from study.config.load import StudyConfig
from study.protocol.results import published_config

_GROWING = ("search.trials", "search.replicates", "confirm.seeds")
_NO_RESULT_DEPENDS_ON = (
    "storage",
    "decision",
    "budget",
    "tracking",
    "resources.concurrent_trials",
    # What the trials ran on is on record with the study, and compared when it goes on.
    "resources.accelerator_type",
    "resources.wait_for_nodes_minutes",
    "resources.network_interface",
    "resources.reuse_workers",
    "training.checkpoint_share",
    # Whether there is a prefix cache decides LIFT's steps; where and how large it is does not.
    "prefix_cache.folder",
    "prefix_cache.max_gib",
    "prefix_cache.min_free_gib",
)
_WHY = {
    "seed": "every subset, design and order of the finished trials came from the old one",
    "model": "finished trials trained the model as it was written before",
    "task": "finished trials trained for the old one",
    "data": "finished trials learned from, and were scored on, the data as written before",
    "arms": "finished trials ran in, and got their steps from, the arms as written before",
    "comparison": "finished trials got their steps on the old basis",
    "search": "finished search trials were chosen the old way, and a winner comes from one search",
    "confirm": "confirm trials on record would be lost",
    "training": "finished trials were trained with the old value",
    "zero": "finished trials were trained, and their memory measured, with the old value",
    "resources": "finished trials were trained, and their cost measured, with the old value",
    "prefix_cache": "it decides LIFT's steps, and finished trials have the old number",
}
_NOT_SET = object()
PACKED = "study-inputs"
"""Folder of the files that travel with a submitted study, each below a hash of its content. It lies
elsewhere in every job, so only what is below it tells whether a path means the same."""


@dataclass(frozen=True)
class Change:
    """A setting that differs between two study files, by its dotted path."""

    path: str
    old: Any
    new: Any

    @property
    def grows(self) -> bool:
        """Whether everything the old value asked for is in the new one too."""
        if self.path == "dataset_sizes":
            return set(self.old) < set(self.new)
        return self.path in _GROWING and self.old < self.new

    @property
    def growth(self) -> str:
        """E.g. ``search.trials 2 -> 4`` or ``dataset_sizes + 512``."""
        if self.path == "dataset_sizes":
            return f"{self.path} + {', '.join(map(str, sorted(set(self.new) - set(self.old))))}"
        return f"{self.path} {self.old} -> {self.new}"

    @property
    def refusal(self) -> str:
        """E.g. ``training.steps: 8 -> 12 (finished trials were trained with the old value)``."""
        return f"{self.path}: {_shown(self.old)} -> {_shown(self.new)} ({self._why})"

    @property
    def _why(self) -> str:
        if self.path == "dataset_sizes":
            lost = ", ".join(map(str, sorted(set(self.old) - set(self.new))))
            return f"trials on record at {lost} examples would be lost; sizes can only be added"
        if self.path in _GROWING:
            return "trials on record would be lost; it can only grow"
        return _WHY.get(self.path.partition(".")[0], "finished trials ran with the old value")


def changes(old: StudyConfig, new: StudyConfig) -> tuple[Change, ...]:
    """Every setting that results depend on and that differs, in the order of the file. Passwords
    are none: they are not on record."""
    return tuple(_changes(published_config(old), published_config(new), ""))


def extension(old: StudyConfig, new: StudyConfig) -> str | None:
    """How a study with results grows from one file to the next; None if it does not.

    Raises:
        StoreError: it would have to do something else than grow.
    """
    found = changes(old, new)
    refused = [change for change in found if not change.grows]
    if refused:
        raise StoreError(
            f"The results of study {old.name!r} were made with another study file. Changed:\n"
            + "".join(f"  - {change.refusal}\n" for change in refused)
            + "Put the old values back to continue it, or give the new study another name or "
            "storage.results; `study clean --all` removes the old one. A study with results can "
            "grow: more search.trials, search.replicates, confirm.seeds or dataset_sizes."
        )
    if not found:
        return None
    return f"Extending the study: {', '.join(change.growth for change in found)}"


def _changes(old: Any, new: Any, path: str) -> Iterator[Change]:
    if path in _NO_RESULT_DEPENDS_ON or without_job_folder(old) == without_job_folder(new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            below = f"{path}.{key}" if path else str(key)
            yield from _changes(old.get(key, _NOT_SET), new.get(key, _NOT_SET), below)
    else:
        yield Change(path, old, new)


def without_job_folder(value: Any) -> Any:
    """A setting, or a section of them, as it is the same in every job of a submitted study."""
    if isinstance(value, Mapping):
        return {key: without_job_folder(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_job_folder(item) for item in value]
    if isinstance(value, str) and f"/{PACKED}/" in value:
        return value[value.index(f"/{PACKED}/") :]
    return value


def _shown(value: Any, limit: int = 60) -> str:
    text = "not set" if value is _NOT_SET else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
