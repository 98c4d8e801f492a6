"""Connects to the Optuna storage that a URL names."""

from __future__ import annotations

import itertools
import re
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from study.basics.database_url import parse_database_url, sqlite_path
from study.basics.errors import StoreError
from study.basics.urls import without_password
from study.store.optuna_internals import id_of_study

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Engine

_TIMEOUT_SECONDS = 10

_ATTEMPTS = 20


def connect(url: str) -> BaseStorage:
    """The storage at an SQLAlchemy URL, its tables made if there are none.

    Raises:
        DatabaseUrlError: it is no database's URL.
        StoreError: it cannot be reached or is no Optuna storage.
    """
    import optuna
    from optuna.storages import RDBStorage, get_storage

    # Optuna prints each new study and trial on stderr, over the live view.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parsed = parse_database_url(url)
    # A reader (report, status) must not make the running study's writer fail.
    patient = {"timeout": 60} if sqlite_path(url) is not None and not parsed.query else {}
    # Written out anew, no character of it means something to Optuna, which fills a template in.
    written = parsed.render_as_string(hide_password=False)
    for attempt in itertools.count(1):
        try:
            return get_storage(RDBStorage(written, engine_kwargs={"connect_args": patient}))
        except Exception as error:  # SQLAlchemy, its drivers and alembic each raise their own
            # Somebody else makes the same tables, and each attempt gets further.
            if attempt < _ATTEMPTS and re.search("already exists|UNIQUE|duplicate key", str(error)):
                time.sleep(0.2)
                continue
            raise unreachable(url, error) from error
    raise AssertionError


def stored_study_names(url: str) -> list[str]:
    """Names of the Optuna studies at an SQLAlchemy URL, by a connection that changes nothing: no
    file and no table is made. Empty where there is no storage yet.

    Raises:
        DatabaseUrlError: it is no database's URL.
        StoreError: it cannot be reached, or not within 10 seconds.
    """
    from sqlalchemy import create_engine, inspect, text

    path = sqlite_path(url)
    if path is not None and not path.is_file():
        return []
    try:
        if path is not None:
            engine = create_engine("sqlite://", creator=lambda: existing_file(path))
        else:
            engine = server_engine(url)
        try:
            with engine.connect() as connection:
                if not inspect(connection).has_table("studies"):
                    return []
                return list(connection.scalars(text("SELECT study_name FROM studies")))
        finally:
            engine.dispose()
    except Exception as error:
        raise unreachable(url, error) from error


def studies_at(url: str) -> tuple[BaseStorage | None, dict[str, dict[str, Any]]]:
    """The storage at an SQLAlchemy URL, None where it holds nothing yet, and of every study in it
    the facts that belong to the whole, by its name. No file and no table is made.

    Raises:
        DatabaseUrlError: it is no database's URL.
        StoreError: there is no such file, or it cannot be reached.
    """
    path = sqlite_path(url)
    if path is not None and not path.is_file():
        raise StoreError(f"No study at {path}. Start it with `study run`, or name another folder.")
    # Connecting makes tables, and a study that is about to begin makes them too.
    if not stored_study_names(url):
        return None, {}
    storage = connect(url)
    facts = {
        study.study_name: storage.get_study_user_attrs(id_of_study(study))
        for study in storage.get_all_studies()
        if "/" not in study.study_name  # those are its cells
    }
    return storage, {name: facts[name] for name in sorted(facts) if "schema_version" in facts[name]}


def existing_file(path: Path) -> sqlite3.Connection:
    """A connection to an SQLite file that makes none; it may write, to mend what a killed writer
    left."""
    place = f"file:{quote(str(path.absolute()))}?mode=rw"
    return sqlite3.connect(place, _TIMEOUT_SECONDS, uri=True)


def server_engine(url: str) -> Engine:
    """Connections to a database server that wait for at most 10 seconds, or what the URL says."""
    from sqlalchemy import create_engine

    known = "connect_timeout" in parse_database_url(url).query
    patience = {} if known else {"connect_timeout": _TIMEOUT_SECONDS}
    return create_engine(url, connect_args=patience)


def unreachable(url: str, error: Exception) -> StoreError:
    """What to tell of a storage that raised something."""
    if isinstance(error, ImportError):
        return StoreError(
            f"The study storage {without_password(url)} needs a database driver that is not "
            "installed: pip install 'finetune-study[postgresql]'."
        )
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return StoreError(
        f"Cannot open the study storage {without_password(url)}: {first.rstrip('.')}. Check "
        "storage.database."
    )


def make_parent(url: str) -> None:
    """Make the folder of an SQLite file.

    Raises:
        StoreError: it cannot be made.
    """
    path = sqlite_path(url)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"Cannot make the folder {path.parent}: {error.strerror}. Set storage.results to a "
            "folder you can write to."
        ) from error
