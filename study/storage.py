"""Connects to the Optuna storage that a URL names."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from study.errors import StoreError
from study.urls import without_password

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_ATTEMPTS = 20


def connect(url: str) -> BaseStorage:
    """The storage at an SQLAlchemy URL, its tables made if there are none.

    Raises:
        StoreError: it cannot be reached or is no Optuna storage.
    """
    import optuna
    from optuna.storages import RDBStorage, get_storage

    # Optuna prints each new study and trial on stderr, over the live view.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for attempt in itertools.count(1):
        try:
            if sqlite_path(url) is not None:
                # A reader (report, status) must not make the running study's writer fail.
                return get_storage(RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}))
            return get_storage(url)
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
        StoreError: it cannot be reached, or not within 10 seconds.
    """
    from sqlalchemy import create_engine, inspect, text

    path = sqlite_path(url)
    if path is not None and not path.is_file():
        return []
    try:
        if path is not None:
            engine = create_engine(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
        else:
            engine = create_engine(url, connect_args={"connect_timeout": 10})
        try:
            with engine.connect() as connection:
                if not inspect(connection).has_table("studies"):
                    return []
                return list(connection.scalars(text("SELECT study_name FROM studies")))
        finally:
            engine.dispose()
    except Exception as error:
        raise unreachable(url, error) from error


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


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite URL, None for a server's."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


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
