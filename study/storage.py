"""Connects to the Optuna storage that a URL names."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage

from study.errors import StoreError


def connect(url: str) -> BaseStorage:
    """The storage at an SQLAlchemy URL.

    Raises:
        StoreError: it cannot be reached or is no Optuna storage.
    """
    # Optuna prints each new study and trial on stderr, over the live view.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if sqlite_path(url) is not None:
            # A reader (report, status) must not make the running study's writer fail.
            return get_storage(RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}))
        return get_storage(url)
    except Exception as error:  # SQLAlchemy, its drivers and alembic each raise their own
        raise StoreError(
            f"Cannot open the study storage {_without_password(url)}: "
            f"{str(error).splitlines()[0]}. Check storage.database."
        ) from error


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


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
