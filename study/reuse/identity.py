"""Whether a past study is about the model and the task that are asked about."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.basics.errors import UserError
from study.basics.fingerprints import hub_id_of, model_fingerprint
from study.config.sources import find_source
from study.reuse.past_studies import PastStudy

TASKS = ("causal-lm", "sequence-classification")


@dataclass(frozen=True)
class Asked:
    """What an answer is wanted for.

    Attributes:
        model: folder or hub id; ``id@revision`` for a revision of the hub.
        dataset_size: training examples.
        task: one of `TASKS`, or the name of a past study whose task is meant; None: not said.
        data: training files, or a hub id; empty: not said.
        memory_limit_gib: of one device; None: the studies' own.
    """

    model: str
    dataset_size: int
    task: str | None = None
    data: tuple[str, ...] = ()
    memory_limit_gib: float | None = None


@dataclass(frozen=True)
class Match:
    """Of a past study with what is asked about.

    Attributes:
        kind: ``same``; the same ``by name`` alone; ``different``.
        reason: how they differ, or why there is no more than a name; empty for ``same``.
    """

    kind: Literal["same", "by name", "different"]
    reason: str = ""

    def __bool__(self) -> bool:
        return self.kind != "different"


class AskedModel:
    """The model that is asked about.

    Raises:
        UserError: it is a folder that is not there, or that is no model.
    """

    def __init__(self, model: str) -> None:
        self.name, self.revision = model, ""
        if not Path(model).expanduser().exists():
            self.name, _, self.revision = model.partition("@")
        local = Path(self.name).expanduser()
        self.is_folder = local.is_dir()
        if not self.is_folder and (model.startswith((".", "/", "~")) or model.count("/") > 1):
            raise UserError(f"--model {model}: there is no such model folder.")
        self.fingerprint = model_fingerprint(self.name, self.revision or None)
        if self.is_folder and self.fingerprint is None:
            raise UserError(
                f"--model {model}: the folder has no config.json or no weights (*.safetensors) "
                "that can be read."
            )

    def match(self, study: PastStudy) -> Match:
        """By content or commit where both are known, else by name."""
        known, path = study.model_fingerprint, study.config.model.path
        if known is not None and self.fingerprint is not None:
            if known == self.fingerprint:
                return Match("same")
            same_id = hub_id_of(known) is not None and hub_id_of(known) == hub_id_of(
                self.fingerprint
            )
            what = f"another revision of {path}" if same_id else f"another model, {path}"
            return Match("different", what)
        ours = str(local_path(self.name)) if self.is_folder else self.name
        theirs = hub_id_of(known) if known is not None else None
        if ours not in (path, theirs):
            return Match("different", f"another model, {path}")
        if self.revision and self.revision != study.config.model.revision:
            return Match("different", f"another revision of {path}")
        if known is None:
            why = "its record is from before models were told apart by their content"
        else:
            why = f"{self.name} is not in this machine's cache"
        return Match("by name", f"The model was compared by its name alone: {why}.")


def local_path(path: str) -> Path:
    """As study files have it once loaded."""
    return Path(os.path.abspath(os.path.expanduser(path)))


class AskedTask:
    """The task that is asked about.

    Args:
        studies: all there are, one of which `asked.task` may name.

    Raises:
        UserError: `asked.task` is neither a task nor one of the studies.
        DataError: there are no such data files.
    """

    def __init__(self, asked: Asked, studies: Sequence[PastStudy]) -> None:
        self.said = bool(asked.task or asked.data)
        self.kind: str | None = asked.task
        self.key: str | None = None
        if asked.task is not None and asked.task not in TASKS:
            named = [study for study in studies if study.name == asked.task]
            if not named:
                known = ", ".join([*TASKS, *sorted({study.name for study in studies})])
                raise UserError(
                    f"--task {asked.task}: is neither a task nor a study here. Known: {known}."
                )
            self.kind, self.key = None, task_key(named[0])
        self.data: str | None = None
        self.files: tuple[str, ...] = ()
        if asked.data:
            source = find_source("--data", list(asked.data), ())
            self.data = source.fingerprint()
            self.files = tuple(str(local_path(str(path))) for path in source.files)

    def match(self, study: PastStudy) -> Match:
        """Of the training data, the templates and the kind of task."""
        config = study.config
        if self.kind is not None and config.task != self.kind:
            return Match("different", f"another task, {config.task}")
        if self.key is not None and task_key(study) != self.key:
            return Match("different", "another task or other data")
        if self.data is None:
            return Match("same")
        if study.train_fingerprint is not None:
            same = study.train_fingerprint == self.data
            return Match("same") if same else Match("different", f"other data, {train_of(study)}")
        train = config.data.train
        paths = (train,) if isinstance(train, str) else tuple(train)
        if set(paths) != set(self.files):
            return Match("different", f"other data, {train_of(study)}")
        why = "its record is from before data were told apart by their content"
        return Match("by name", f"The data were compared by their paths alone: {why}.")


def task_key(study: PastStudy) -> str:
    """Equal for studies of one task: its kind, its training data by content, and how an example is
    made of a row."""
    data = study.config.data
    chat = [data.messages, data.loss_on]
    templates = [data.subset, data.text, data.prompt, data.response, *chat, data.label]
    train = study.train_fingerprint or data.train
    return json.dumps([study.config.task, train, templates])


def task_of(study: PastStudy) -> str:
    """For people, e.g. ``causal-lm on train.jsonl``."""
    return f"{study.config.task} on {train_of(study)}"


def train_of(study: PastStudy) -> str:
    """Its training data, for people."""
    train = study.config.data.train
    first = train if isinstance(train, str) else train[0]
    more = "" if isinstance(train, str) or len(train) == 1 else f" and {len(train) - 1} more"
    return f"{Path(first).name if os.path.isabs(first) else first}{more}"
