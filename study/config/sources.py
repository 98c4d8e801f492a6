"""What a key of the `data` section points at: local files, or a dataset on the hub."""

from __future__ import annotations

import difflib
import glob
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.basics.errors import DataError
from study.basics.fingerprints import files_fingerprint
from study.basics.paths import is_hub_id
from study.config.data_formats import FORMATS, data_format

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")
_SPLIT_NAMES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}


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
    if len(entries) == 1 and is_hub_id(entries[0], Path()) and not data_format(entries[0]):
        return Source(key, hub=entries[0], hub_splits=hub_splits)
    files = [file for entry in entries for file in _files(key, entry, hub_splits)]
    if not files:
        raise DataError(f"{key}: the list is empty. Name at least one file.")
    return Source(key, files=tuple(files))


def _files(key: str, entry: str, splits: Sequence[str]) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = _saved(key, path, splits) or _of_split(key, path, splits)
        if not found:
            raise DataError(
                f"{key}: the folder {entry} holds no data file. Supported: {', '.join(FORMATS)}."
            )
        _refuse_missing_shards(key, found)
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


def _of_split(key: str, folder: Path, splits: Sequence[str]) -> list[Path]:
    """The folder's data files; where their names say of which split each is, those of this one.

    Raises:
        DataError: none is named for it, or some say nothing.
    """
    there = sorted(p for p in folder.iterdir() if p.is_file() and data_format(p))
    there = [path for path in there if not path.name.startswith(".")]  # what systems leave behind
    named = [_named_split(path) for path in there]
    wanted = next((split for split in splits if split in named), None)
    if {*named} <= {None, wanted}:
        return there
    if wanted is None or None in named:
        shown = ", ".join(path.name for path in there[:5])
        raise DataError(
            f"{key}: the folder {folder} holds files of several splits, or of another one "
            f"({shown}{', ...' if len(there) > 5 else ''}). Name the files that are meant."
        )
    return [path for path, split in zip(there, named, strict=True) if split == wanted]


def _named_split(path: Path) -> str | None:
    """The split that a file's name says, as `datasets` understands such names."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((split for split, names in _SPLIT_NAMES.items() if names & {*words}), None)


def _refuse_missing_shards(key: str, files: Sequence[Path]) -> None:
    """Raise DataError for a dataset that was downloaded in part, as its names show:
    ``train-00000-of-00004.parquet``."""
    shards: dict[tuple[str, str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            before, number, total, after = match.groups()
            name = (str(file.parent / before), after, int(total))
            shards.setdefault(name, set()).add(int(number))
    for (before, after, total), numbers in shards.items():
        if len(numbers) < total:
            raise DataError(
                f"{key}: {total - len(numbers)} of the {total} files {before}-*-of-*{after} are "
                "missing. Download them, or name the ones that are meant."
            )


def _saved(key: str, folder: Path, splits: Sequence[str]) -> list[Path]:
    """The files of a dataset that `save_to_disk` wrote, in their order; none for another folder.

    Raises:
        DataError: it has several splits, none of which is the one that is looked for.
    """
    try:
        if (folder / "dataset_dict.json").is_file():
            there = json.loads((folder / "dataset_dict.json").read_text())["splits"]
            wanted = [name for name in splits if name in there] or there
            if len(wanted) > 1 and wanted[0] not in splits:
                raise DataError(
                    f"{key}: the folder {folder} holds the splits {', '.join(there)}. Name one, "
                    f"such as {folder / there[0]}."
                )
            folder = folder / wanted[0]
        if not (folder / "state.json").is_file():
            return []
        names = json.loads((folder / "state.json").read_text())["_data_files"]
        return [folder / entry["filename"] for entry in names]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{key}: the folder {folder} looks like a dataset that save_to_disk() wrote, but "
            f"cannot be read as one ({type(error).__name__}: {error}). Save it again."
        ) from error


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Its folder {path.parent} does not exist either. Check the path."
    names = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f" Did you mean {path.parent / names[0]}?" if names else " Check the path."
