"""What a key of the `data` section points at: local files, or a dataset on the hub."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.errors import DataError
from study.fingerprints import files_fingerprint

FORMATS = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".txt": "text",
}  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """What a key of the `data` section points at: local files, or one hub dataset.

    Attributes:
        key: the key, e.g. ``data.train``; begins every message about this source.
        files: local files in reading order; empty for a hub dataset.
        hub: hub id, or None.
        hub_splits: the hub splits to take, the first that exists.
    """

    key: str
    files: tuple[Path, ...] = ()
    hub: str | None = None
    hub_splits: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages: the file, the first of several, or the hub id."""
        if self.hub:
            return self.hub
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"

    def identity(self) -> list[Any]:
        """JSON value that changes when the files do: path, size and time of last change.
        A hub dataset is known by its id alone, so that a prepared study needs no network."""
        if self.hub:
            return [self.hub, *self.hub_splits]
        stats = [(path.resolve(), path.stat()) for path in self.files]
        return [[str(path), s.st_size, s.st_mtime_ns, s.st_ino] for path, s in stats]

    def fingerprint(self) -> str:
        """The same on any machine and for any names of the files: of their content, or the hub id.

        Raises:
            OSError: a file cannot be read.
        """
        return f"hub:{self.hub}" if self.hub else files_fingerprint(self.files)


def find_source(key: str, value: str | Sequence[str], hub_splits: tuple[str, ...]) -> Source:
    """Resolve files, folders, globs, lists of them, or a hub id.

    Raises:
        DataError: a path does not exist, a glob matches nothing, or a format is unknown.
    """
    entries = [value] if isinstance(value, str) else list(value)
    if len(entries) == 1 and _is_hub_id(entries[0]):
        return Source(key, hub=entries[0], hub_splits=hub_splits)
    files = [file for entry in entries for file in _files(key, entry)]
    if not files:
        raise DataError(f"{key}: the list is empty. Name at least one file.")
    return Source(key, files=tuple(files))


def _is_hub_id(entry: str) -> bool:
    path = Path(entry).expanduser()
    if path.exists() or data_format(path) or not _HUB_ID.fullmatch(entry):
        return False
    # "data/train" with a local folder "data" is a mistyped path, not somebody's dataset.
    return "/" not in entry or not path.parent.exists()


def _files(key: str, entry: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and data_format(p))
        if not found:
            raise DataError(
                f"{key}: the folder {entry} holds no data file. Supported: {', '.join(FORMATS)}."
            )
    elif glob.has_magic(entry):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        found = [p for p in found if p.is_file()]
        if not found:
            raise DataError(f"{key}: no file matches {entry}. Check the pattern and the folder.")
    else:
        raise DataError(f"{key}: {entry} does not exist.{_nearest_file(path)}")
    for file in found:
        if not data_format(file):
            raise DataError(
                f"{key}: {file} has an unknown format '{file.suffix}'. "
                f"Supported: {', '.join(FORMATS)}."
            )
    return found


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Its folder {path.parent} does not exist either. Check the path."
    names = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f" Did you mean {path.parent / names[0]}?" if names else " Check the path."


def suffix(path: Path) -> str:
    """The lower-case suffix that decides the format; ``.gz`` only wraps it."""
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def data_format(path: Path) -> str | None:
    """The reader of `datasets` for this file, or None if there is none."""
    return FORMATS.get(suffix(path))
