"""A study as its database holds it at this moment, read without Optuna.

Optuna and its libraries take as long to import as everything else that `study recommend` does.
What is read here are the tables of Optuna's storage that hold a study's facts: studies, trials and
their user attributes (see `study.store.study_store`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from study.basics.database_url import file_url, sqlite_path
from study.config.load import StorageConfig
from study.protocol.records import TrialState
from study.store.connect import existing_file, server_engine, unreachable
from study.store.facts import read_config
from study.store.reader import StudyReader

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Query = Callable[[str, Mapping[str, Any]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class _Trial:
    state: TrialState
    user_attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Study:
    study_name: str
    _study_id: int


class Snapshot:
    """One study's rows, under the names that Optuna's storages give to reading them."""

    def __init__(
        self,
        studies: Mapping[str, int],
        facts: Mapping[str, Any],
        trials: Mapping[int, list[_Trial]],
    ) -> None:
        self._ids, self._facts, self._trials = studies, facts, trials

    def get_all_studies(self) -> list[_Study]:
        return [_Study(name, number) for name, number in self._ids.items()]

    def get_study_id_from_name(self, name: str) -> int:
        return self._ids[name]

    def get_study_user_attrs(self, study_id: int) -> Mapping[str, Any]:
        """Those of the whole study; its cells have none."""
        return self._facts

    def get_all_trials(self, study_id: int, deepcopy: bool = False) -> list[_Trial]:
        return self._trials.get(study_id, [])


def facts_at(database: str | Path) -> dict[str, dict[str, Any]]:
    """Of every study in a database, the facts that belong to the whole, by its name.

    Args:
        database: a URL, or an SQLite file, which takes no time to make out.

    Raises:
        DatabaseUrlError: it is no database's URL.
        StoreError: the database cannot be reached.
    """
    with _connected(database) as query:
        rows = query(
            "SELECT s.study_name, a.key, a.value_json FROM studies s "
            "JOIN study_user_attributes a ON a.study_id = s.study_id "
            "WHERE s.study_name NOT LIKE :cells",
            {"cells": "%/%"},
        )
    found: dict[str, dict[str, Any]] = {}
    for name, key, value in rows:
        found.setdefault(name, {})[key] = json.loads(value)
    return {name: facts for name, facts in found.items() if "schema_version" in facts}


def read_snapshot(
    database: str | Path, name: str, facts: Mapping[str, Any], place: StorageConfig | None = None
) -> StudyReader:
    """A study with all its trials.

    Args:
        database, facts: as `facts_at` took and gave them.
        place: where its files are; None: a database alone does not tell.

    Raises:
        StoreError: the database cannot be reached, or is of an unknown version.
    """
    with _connected(database) as query:
        # `LIKE` would take an underscore of the name for any letter.
        mine = {"name": name, "prefix": f"{name}/", "length": len(name) + 1}
        which = "(s.study_name = :name OR substr(s.study_name, 1, :length) = :prefix)"
        studies = query(f"SELECT s.study_name, s.study_id FROM studies s WHERE {which}", mine)
        joined = f"FROM studies s JOIN trials t ON t.study_id = s.study_id WHERE {which}"
        trials = query(f"SELECT t.trial_id, t.study_id, t.state {joined} ORDER BY t.number", mine)
        attributes = query(
            "SELECT a.trial_id, a.key, a.value_json FROM trial_user_attributes a JOIN "
            f"(SELECT t.trial_id {joined}) found ON found.trial_id = a.trial_id",
            mine,
        )
    by_id = {number: _Trial(TrialState[state]) for number, _, state in trials}
    for number, key, value in attributes:
        if number in by_id:  # one may have begun between the queries
            by_id[number].user_attrs[key] = json.loads(value)
    of_study: dict[int, list[_Trial]] = {}
    for number, study_id, _ in trials:
        of_study.setdefault(study_id, []).append(by_id[number])
    storage = cast("BaseStorage", Snapshot({str(n): int(i) for n, i in studies}, facts, of_study))
    url = file_url(database.absolute()) if isinstance(database, Path) else database
    return StudyReader(read_config(storage, name, url, place), storage)


@contextmanager
def _connected(database: str | Path) -> Iterator[Query]:
    """A function that runs a query with named values; makes no file and no table."""
    path = database if isinstance(database, Path) else sqlite_path(database)
    try:
        if path is not None:
            with closing(existing_file(path)) as connection:
                yield lambda text, values: connection.execute(text, values).fetchall()
            return
        from sqlalchemy import text

        engine = server_engine(str(database))
        try:
            with engine.connect() as server:
                yield lambda sql, values: [tuple(r) for r in server.execute(text(sql), values)]
        finally:
            engine.dispose()
    except Exception as error:  # SQLite, SQLAlchemy and its drivers each raise their own
        raise unreachable(str(database), error) from error
