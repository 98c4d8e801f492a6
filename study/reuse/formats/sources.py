"""A study's data as other tools name it."""

from __future__ import annotations

import glob
import os
import string
from dataclasses import dataclass

from study.config.data_formats import data_format, suffix
from study.reuse.formats.base import Run

RENDERED = ("prompt", "response")
"""Columns of a file that a user writes where a tool cannot fill the study's templates."""
_KINDS = {"jsonl": "json", "ndjson": "json", "tsv": "csv", "txt": "text"}


@dataclass(frozen=True)
class Source:
    """One file or hub dataset.

    Attributes:
        path: absolute path, or hub id.
        kind: ``json``, ``csv``, ``parquet`` or ``text``; None for a hub dataset.
        subset: a hub dataset's configuration.
    """

    path: str
    kind: str | None
    subset: str | None = None


def sources(run: Run, split: str) -> list[Source]:
    """The files of ``train`` or ``validation``; a pattern stands for what it matches here, or for
    itself where that is nothing."""
    named = getattr(run.best.data, split)
    entries = [named] if isinstance(named, str) else list(named or ())
    found: list[Source] = []
    for entry in entries:
        if not _is_file(entry):
            found.append(Source(entry, None, run.best.data.subset))
            continue
        matches = sorted(glob.glob(entry)) if glob.has_magic(entry) else []
        found += [Source(path, _kind(path)) for path in matches or [entry]]
    return found


@dataclass(frozen=True)
class Prompt:
    """A prompt template over at most two columns, and a response that is one column.

    Attributes:
        columns: of the prompt.
        response: the response's column.
        parts: (literal, column or None) in turn.
    """

    columns: tuple[str, ...]
    response: str
    parts: tuple[tuple[str, str | None], ...]


def simple_prompt(run: Run) -> Prompt | None:
    """The study's templates where they are as simple as `Prompt`; None otherwise."""
    data = run.best.data
    parts = _parse(data.prompt or "")
    columns = tuple(dict.fromkeys(name for _, name in parts if name is not None))
    response = [(text, name) for text, name in _parse(data.response or "") if text or name]
    if len(columns) > 2 or len(response) != 1 or response[0][0] or response[0][1] is None:
        return None
    return Prompt(columns, response[0][1], tuple(parts))


def rendering_note(run: Run, tool: str, name: str, extra: str = "") -> str:
    """What a user must do where `tool` cannot fill the study's templates."""
    data = run.best.data
    names = f"{name} and validation-{name}" if data.validation else name
    return (
        f"{tool} cannot fill the study's templates: write {names} yourself, a JSON object with "
        f"`{RENDERED[0]}` ({data.prompt!r} filled) and `{RENDERED[1]}` ({data.response!r} "
        f"filled) on each line{extra}."
    )


def split_notes(run: Run) -> list[str]:
    """What becomes of the study's validation and test examples."""
    data = run.best.data
    notes = []
    if not data.validation:
        notes.append(
            "The tool cuts its validation examples by its own draw, so they are others than the "
            "study's."
        )
    if not data.test:
        notes.append(
            "The study's test examples were cut from the training file, and nothing keeps them out "
            "of training here: the study's test loss says nothing about this model."
        )
    return notes


def form(run: Run) -> str:
    """``text``, ``prompt`` or ``messages``."""
    data = run.best.data
    if data.messages:
        return "messages"
    return "prompt" if data.response else "text"


def _is_file(entry: str) -> bool:
    return os.path.isabs(entry) or data_format(entry) is not None or os.path.exists(entry)


def _kind(path: str) -> str:
    ending = suffix(path).removeprefix(".")
    return _KINDS.get(ending, ending or "json")


def _parse(template: str) -> list[tuple[str, str | None]]:
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
