"""Reads a study's results, wherever they lie."""

from __future__ import annotations

from pathlib import Path

from study.basics.database_url import file_url, sqlite_path
from study.basics.errors import StoreError
from study.basics.paths import STUDY_FILE, StudyPaths, is_yaml
from study.basics.remote import is_remote
from study.basics.urls import without_password
from study.config.load import StorageConfig, StudyConfig, load_config
from study.protocol.results import StudyResults
from study.store.published import RESULTS, read_results
from study.store.study_store import StudyStore


def read_study(source: str | Path) -> StudyResults:
    """Everything on record of a study, from any machine.

    Args:
        source: the URL of a results folder (``s3://bucket/study``), a local copy of one, or what
            `open_study` takes. A study file whose results are at a URL is read there.

    Raises:
        UserError: there is no study.
    """
    if is_remote(source):
        return read_results(str(source))
    path = Path(source)
    if path.is_dir() and not StudyPaths(path).database.is_file():
        if (path / RESULTS).is_file():
            return read_results(f"file://{path.absolute()}")
        path = path / STUDY_FILE
    if is_yaml(path) and path.is_file():
        config = load_config(path)
        if config.results_url is not None:
            return read_results(config.results_url)
    return open_study(source).results()


def store_of(config: StudyConfig) -> StudyStore | None:
    """The results that a study file has so far; None if it has none."""
    path = sqlite_path(config.database_url)
    if path is None or not path.is_file():  # a database server is not asked about a plan
        return None
    try:
        return StudyStore.open(config.database_url, config.name, config.storage)
    except StoreError:  # other studies are in that file; `study run` says so if it is unreadable
        return None


def label_of(source: str) -> str:
    """What an earlier study is called in notes: a results folder's own name."""
    path = Path(without_password(source))
    return path.parent.name if is_yaml(path) else path.name


def open_study(source: str | Path) -> StudyStore:
    """Open a study's store for reading. Its files are where `source` says, whatever the record
    does: the folder may be a copy.

    Args:
        source: a study file, a results folder, a folder with a ``study.yaml``, or an Optuna
            storage URL; ``URL#name`` for one of several studies in it.

    Raises:
        UserError: there is no study.
    """
    if "://" in str(source):
        url, _, name = str(source).partition("#")
        return StudyStore.open(url, name or None)
    path = Path(source)
    if path.is_dir():
        database = StudyPaths(path).database
        if database.is_file():
            place = StorageConfig(results=str(path.absolute()))
            return StudyStore.open(file_url(database.absolute()), place=place)
        if not (path / STUDY_FILE).is_file():
            raise StoreError(
                f"No study in {path}: neither study.db nor study.yaml is there. Name a study "
                "file or the results folder of a study."
            )
        path = path / STUDY_FILE
    config = load_config(path)
    return StudyStore.open(config.database_url, config.name, config.storage)
