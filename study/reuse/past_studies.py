"""Finds studies in results folders, study files, databases and buckets, and reads them quickly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.basics.database_url import sqlite_path
from study.basics.errors import StoreError, StudyError, UserError
from study.basics.paths import STUDY_FILE, StudyPaths, is_yaml
from study.basics.remote import is_remote
from study.basics.urls import without_password
from study.config.load import StorageConfig, StudyConfig, load_config
from study.protocol.results import StudyResults
from study.store.facts import SCHEMA_VERSION
from study.store.published import read_results
from study.store.snapshot import facts_at, read_snapshot

DEFAULT_PLACES = ("results", "study.yaml")
_DEEPEST = 4
"""Folders below a place in which results are looked for."""


@dataclass(frozen=True)
class PastStudy:
    """A study on record, its trials not read yet.

    Attributes:
        name, config: of its file.
        place: what a command takes as its STUDY argument.
        source: the database that was read, or the URL of the results folder. What its file says may
            have been true on another machine.
        model_fingerprint, train_fingerprint: see `study.basics.fingerprints`; None in records from
            before they were kept.
        results: reads everything.
    """

    name: str
    config: StudyConfig
    place: str
    source: str
    model_fingerprint: str | None
    train_fingerprint: str | None
    results: Callable[[], StudyResults]


def find_studies(places: Sequence[str]) -> tuple[list[PastStudy], list[str]]:
    """All studies in some places.

    Args:
        places: results folders or folders above them, study files, URLs of databases or of results
            folders; empty: `DEFAULT_PLACES`, as far as they are there.

    Returns:
        (studies, what could not be read and why).

    Raises:
        UserError: there is no such place.
        StoreError: a place that was named cannot be read.
    """
    found: dict[tuple[str, str], PastStudy] = {}
    trouble: list[str] = []
    named = places or [place for place in DEFAULT_PLACES if Path(place).exists()]
    for place in named:
        for source in _sources(place):
            try:
                for study in source():
                    key = study.config.results_url or study.source, study.name
                    found.setdefault(key, study)
            except StudyError as error:
                if places and len(places) == 1 and not Path(place).is_dir():
                    raise
                trouble.append(str(error))
    return list(found.values()), trouble


def _sources(place: str) -> Iterator[Callable[[], list[PastStudy]]]:
    if is_remote(place):
        yield partial(_published, place)
        return
    if "://" in place:
        yield partial(_in_database, place, place, StorageConfig(database=place))
        return
    path = Path(place)
    if is_yaml(path) and path.is_file():
        yield partial(_of_file, path)
    elif path.is_dir():
        if (path / STUDY_FILE).is_file():
            yield partial(_of_file, path / STUDY_FILE)
        for folder in _results_below(path):
            here = StorageConfig(results=str(folder.absolute()))
            yield partial(_in_database, StudyPaths(folder).database, str(folder), here)
    else:
        raise UserError(
            f"--studies {place}: there is no such folder or study file. Give a results folder, a "
            "folder above some, a study file, or the URL of a database or a results folder."
        )


def _results_below(root: Path) -> Iterator[Path]:
    """Results folders at or below a folder, ascending."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        deep = len(here.relative_to(root).parts) >= _DEEPEST
        if StudyPaths(here).database.name in files:
            yield here
            deep = True
        names[:] = [] if deep else sorted(name for name in names if not name.startswith("."))


def _of_file(path: Path) -> list[PastStudy]:
    """None where the study has not begun."""
    config = load_config(path)
    if config.results_url is not None:
        return _published(config.results_url)
    url, database = config.storage.database, StudyPaths(config.results_dir).database
    file = database if url is None else sqlite_path(url)
    if file is not None and not file.is_file():
        return []
    return _in_database(file or config.database_url, str(path), config.storage, config.name)


def _published(url: str) -> list[PastStudy]:
    results = read_results(url)
    return [
        PastStudy(
            name=results.config.name,
            config=results.config,
            place=url,
            source=url,
            model_fingerprint=results.model_fingerprint,
            train_fingerprint=results.train_fingerprint,
            results=lambda: results,
        )
    ]


def _in_database(
    database: str | Path, place: str, storage: StorageConfig, only: str | None = None
) -> list[PastStudy]:
    """The studies of a database, or one of them; `storage` says where their files are."""
    everything = facts_at(database)
    studies = []
    for name, facts in everything.items():
        if only in (None, name):
            several = place == database and len(everything) > 1
            shown = without_password(f"{place}#{name}" if several else place)
            studies.append(_study(database, name, facts, shown, storage))
    return studies


def _study(
    database: str | Path, name: str, facts: Mapping[str, Any], place: str, storage: StorageConfig
) -> PastStudy:
    if facts["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"{place}: study {name!r} has schema version {facts['schema_version']}; this program "
            f"reads {SCHEMA_VERSION}."
        )
    try:
        config = StudyConfig.from_dict(facts["config"])
    except (ValidationError, KeyError) as error:
        raise StoreError(f"{place}: study {name!r} is of another version: {error}") from error
    path = database if isinstance(database, Path) else sqlite_path(database)
    return PastStudy(
        name=name,
        config=config,
        place=place,
        source=without_password(str(database)) if path is None else str(path.resolve()),
        model_fingerprint=facts.get("model_fingerprint"),
        train_fingerprint=facts.get("train_fingerprint"),
        results=lambda: read_snapshot(database, name, facts, storage).results(),
    )
