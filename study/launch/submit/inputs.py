"""Which files a job takes along with its study, and which must be on the cluster already."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from study.basics.database_url import sqlite_path
from study.basics.errors import ConfigError, UserError
from study.basics.text_format import byte_size
from study.basics.urls import settings_with_password
from study.basics.yaml_source import dump_yaml, read_yaml
from study.config.files import NAMING_FILES
from study.config.load import StudyConfig, load_config, parse_config
from study.protocol.extension import PACKED
from study.reuse.warm_start import earlier_study
from study.store.opening import label_of
from study.store.published import RESULTS, record_of

TRAVEL_LIMIT = 90 * 2**20
"""Bytes that a job takes along at most. Ray's dashboard refuses requests of 100 MiB."""
_WARM_START = "search.warm_start"


@dataclass(frozen=True)
class Input:
    """Local files that one setting of a study names.

    Attributes:
        key: the setting, e.g. ``data.train``.
        value: what it says, made absolute.
        root: the folder that the files' names are relative to.
        files: the files, sorted.
        rest: what of `value` is below `root`: a name, a pattern, or nothing for all of `root`.
    """

    key: str
    value: str
    root: Path
    files: tuple[Path, ...]
    rest: str

    @property
    def size(self) -> int:
        """Bytes of the files together."""
        return sum(path.stat().st_size for path in self.files)

    @cached_property
    def folder(self) -> str:
        """What `root` becomes in the package."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path.relative_to(self.root).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        folder = f"{PACKED}/{digest.hexdigest()[:16]}"
        return folder if self.rest else f"{folder}/{self.root.name}"


@dataclass(frozen=True)
class EarlierStudy:
    """A study that a warm start names: what is on record of it travels.

    Attributes:
        key, value: as of an `Input`.
        record: what a results folder in a bucket has, see `study.store.published`.
    """

    key: str
    value: str
    record: bytes

    @property
    def size(self) -> int:
        return len(self.record)

    @property
    def root(self) -> str:
        return self.value

    @property
    def folder(self) -> str:
        """By its name, not its content: a study goes on when an earlier one has grown."""
        digest = hashlib.sha256(self.value.encode()).hexdigest()
        return f"{PACKED}/{digest[:16]}/{label_of(self.value)}"


@dataclass(frozen=True)
class PackedStudy:
    """A study as a job runs it.

    Attributes:
        name: of the study.
        results: its results, a path or URL that outlives the job.
        file_name: of the study file in the package.
        text: the study file: nothing left to look up, and files that travel by relative paths.
        inputs: what travels, each file or its content by its path in the package.
        on_cluster: files and folders that the nodes must see, by setting.
        database: the study's storage URL; None: a file in the results.
        trackers: where else the job shows its trials.
    """

    name: str
    results: str
    file_name: str
    text: str
    inputs: Mapping[str, Path | bytes]
    on_cluster: tuple[tuple[str, str], ...]
    database: str | None
    trackers: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of what travels."""
        return sum(
            len(file) if isinstance(file, bytes) else file.stat().st_size
            for file in self.inputs.values()
        )


def pack_study(path: Path, results: str | None = None, shared: Sequence[str] = ()) -> PackedStudy:
    """Check a study file for a cluster, and see what its job takes along.

    Absolute paths that do not exist here are taken to be the cluster's.

    Args:
        results: instead of the file's ``storage.results``.
        shared: folders that are the same here and on the cluster; nothing below them travels.

    Raises:
        ConfigError: everything that is wrong with the file.
        UserError: results that would end with the job, a password, or too much to take along.
    """
    source = read_yaml(path)
    written = source.data if isinstance(source.data, Mapping) else {}
    _check_file(path, written)
    storage = {**_section(written, "storage"), **({"results": results} if results else {})}
    if isinstance(storage.get("results"), str):  # it is one place, however it ends
        storage["results"] = storage["results"].rstrip("/")
    _check_storage(path, storage, str(written.get("name")))
    _check_cache(path, _section(written, "prefix_cache").get("folder"))
    _check_passwords(path, {**written, "storage": storage})
    base_dir = path.absolute().parent
    config = parse_config({**written, "storage": storage}, base_dir, str(path))
    kept = [Path(os.path.abspath(os.path.expanduser(folder))) for folder in shared]
    inputs, earlier = list[Input](), list[EarlierStudy]()
    on_cluster = list[tuple[str, str]]()
    for key, value in _local_values(config):
        if _is_below(value, kept) or not _is_here(value):
            on_cluster.append((key, value))
        elif key == _WARM_START:
            earlier.append(EarlierStudy(key, value, record_of(earlier_study(value))))
        else:
            inputs.append(_find(key, value))
    _check_size([*inputs, *earlier])
    moved = {i.value: f"./{i.folder}/{i.rest}".rstrip("/") for i in inputs}
    moved |= {study.value: f"./{study.folder}" for study in earlier}
    files: dict[str, Path | bytes] = {
        f"{i.folder}/{file.relative_to(i.root).as_posix()}": file
        for i in inputs
        for file in i.files
    }
    files |= {f"{study.folder}/{RESULTS}": study.record for study in earlier}
    return PackedStudy(
        name=config.name,
        results=str(storage["results"]),
        file_name=path.name,
        text=dump_yaml(_settings(written, config, moved, storage)),
        inputs=files,
        on_cluster=tuple(on_cluster),
        database=storage.get("database"),
        trackers=tuple(config.tracking),
    )


def outlives_a_job(place: object) -> bool:
    """Whether results there are still there when the job has ended: a URL or an absolute path."""
    return isinstance(place, str) and ("://" in place or place.startswith("/"))


def _section(written: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = written.get(name)
    return dict(section) if isinstance(section, Mapping) else {}


def _check_file(path: Path, written: Mapping[str, Any]) -> None:
    """All that `load_config` finds, but for files that may be on the cluster."""
    try:
        load_config(path)
    except ConfigError as error:
        elsewhere = {key for key, value in _written_paths(written) if _is_elsewhere(value)}
        kept = [fault for fault in error.faults if fault.path not in elsewhere]
        if kept:
            raise ConfigError(error.source, kept) from None


def _written_paths(written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The files that a study file names, as written, by the paths that faults have."""
    for section, keys in NAMING_FILES:
        for key in keys:
            value = _section(written, section).get(key)
            if isinstance(value, str):
                yield f"{section}.{key}", value
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    yield f"{section}.{key}.{index}", str(item)


def _is_elsewhere(value: str) -> bool:
    return value.startswith("/") and not os.path.exists(value) and not glob.glob(value)


def _check_storage(path: Path, storage: Mapping[str, Any], name: str) -> None:
    results = storage.get("results")
    if not outlives_a_job(results):
        is_set = "is not set" if results is None else f"is {results!r}"
        raise UserError(
            f"{path}: storage.results {is_set}; a folder in the job's own files is lost when the "
            f"job ends. Give --results a folder that every node sees, such as "
            f"/shared/results/{name}, or a URL, such as s3://bucket/{name}; or write it into the "
            "study file."
        )
    database = storage.get("database")
    file = None if database is None else sqlite_path(database)
    if file is not None and not file.is_absolute():
        raise UserError(
            f"{path}: storage.database is {database}; a file in the job's own folder is lost when "
            "the job ends. Name one that every node sees (sqlite:////shared/study.db), or leave "
            "it out."
        )


def _check_cache(path: Path, folder: object) -> None:
    if folder is not None and not str(folder).startswith("/"):
        raise UserError(
            f"{path}: prefix_cache.folder is {folder!r}, and a job's own folder goes with it. Name "
            "one on a disk of each node, such as /scratch/prefix, or leave it out."
        )


def _check_passwords(path: Path, written: object) -> None:
    """A job's files and settings can be read by everyone who reaches the dashboard."""
    for key in settings_with_password(written):
        remedy = "Leave it out and set it in the environment of the cluster's nodes"
        if key == "storage.database":
            remedy += ", as PGPASSWORD or in a pgpass file"
        raise UserError(
            f"{path}: {key} has a password in it, and a job's files can be read by everyone who "
            f"reaches the cluster's dashboard. {remedy}."
        )


def _local_values(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Every local path of a resolved study, by setting; hub ids and shipped text are none."""
    for section, keys in NAMING_FILES:
        for key in keys:
            value: str | list[str] | None = getattr(getattr(config, section), key)
            named = f"{section}.{key}"
            for path in [value] if isinstance(value, str) else value or []:
                reached = named == _WARM_START and "://" in path and _database_file(path) is None
                if os.path.isabs(path) or ("://" in path and not reached):
                    yield named, path


def _is_below(value: str, folders: Iterable[Path]) -> bool:
    return any(Path(value).is_relative_to(folder) for folder in folders)


def _database_file(value: str) -> Path | None:
    """The file of an SQLite URL, with or without a study's name; None for what is none."""
    return sqlite_path(value.partition("#")[0]) if value.startswith("sqlite") else None


def _is_here(value: str) -> bool:
    """Whether a path, a pattern, or the URL of an SQLite file, means something on this machine."""
    path = _database_file(value) or value
    return os.path.exists(path) or any(map(os.path.isfile, glob.iglob(value, recursive=True)))


def _find(key: str, value: str) -> Input:
    """The files that a path means here."""
    path = Path(value)
    if path.is_file():
        return Input(key, value, path.parent, (path,), path.name)
    if path.is_dir():
        below = (p for p in path.rglob("*") if not _is_hidden(p.relative_to(path)))
        return Input(key, value, path, tuple(sorted(p for p in below if p.is_file())), "")
    files = tuple(sorted(p for p in map(Path, glob.glob(value, recursive=True)) if p.is_file()))
    root = next(p for p in path.parents if not glob.has_magic(str(p)))
    return Input(key, value, root, files, path.relative_to(root).as_posix())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _check_size(inputs: Sequence[Input | EarlierStudy]) -> None:
    by_place = {i.value: i for i in inputs}
    total = sum(i.size for i in by_place.values())
    if total <= TRAVEL_LIMIT:
        return
    largest = sorted(by_place.values(), key=lambda i: i.size, reverse=True)
    named = ", ".join(f"{i.key} {i.value} ({byte_size(i.size)})" for i in largest)
    raise UserError(
        f"Too much to take along: {named}. A job takes at most {byte_size(TRAVEL_LIMIT)} in all. "
        "Put the largest on storage that every node sees and write its path there into the study "
        f"file; where that is the path it has here, add --shared {largest[0].root}."
    )


def _settings(
    written: Mapping[str, Any],
    config: StudyConfig,
    moved: Mapping[str, str],
    storage: Mapping[str, Any],
) -> dict[str, Any]:
    """The study file as written, with its search space in it and the paths that hold in the job."""
    settings = {**written, "storage": dict(storage)}
    for section, keys in NAMING_FILES:
        changed = _section(written, section)
        for key in changed.keys() & set(keys):
            value = getattr(getattr(config, section), key)
            changed[key] = (
                [moved.get(item, item) for item in value]
                if isinstance(value, list)
                else moved.get(value, value)
            )
        settings[section] = changed
    settings["search"] = {**settings["search"], "space": config.search.space}
    return settings
