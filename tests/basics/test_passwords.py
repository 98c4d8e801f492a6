"""A password in a study's URLs is in nothing that others may read."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url

from study.basics.errors import ConfigError, StoreError
from study.cli.output import libraries_to
from study.config.load import load_config, parse_config
from study.protocol.records import TrialState
from study.report import write_report
from study.reuse.best import best_configuration
from study.store.opening import read_study
from study.store.study_store import StudyStore
from tests.helpers.best_files import written
from tests.helpers.results import DRAWN_FROM, make_config
from tests.helpers.stores import finished_study, write_store

CANARY = "c4n4ry"
URL = f"postgresql://me:{CANARY}@db.example/s"


@pytest.fixture
def database(postgres_database: str) -> str:
    """Of a server that lets everybody in, whatever the password."""
    return make_url(postgres_database).set(password=CANARY).render_as_string(hide_password=False)


def everything_in(database: str) -> str:
    engine = create_engine(database)
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        rows = [connection.execute(text(f'SELECT * FROM "{t}"')).fetchall() for t in tables]
    engine.dispose()
    return str(rows)


def test_it_is_in_neither_the_store_nor_what_is_made_of_it(database: str, tmp_path: Path) -> None:
    config = make_config(
        sizes=(64,), trials=2, replicates=2, overrides=DRAWN_FROM,
        storage={"results": str(tmp_path / "results"), "database": database},
        data={"train": f"https://me:{CANARY}@host/train.jsonl", "text": "text"},
        model={"path": f"https://me:{CANARY}@host/model"},
    )  # fmt: skip
    search = config.search.model_copy(update={"warm_start": [URL]})
    config = config.model_copy(update={"search": search})
    results = finished_study(config)
    trial = results.trials[0]
    assert trial.outcome is not None
    failed = dataclasses.replace(trial.outcome, status="error", score=None, reason=f"Lost {URL}.")
    lost = dataclasses.replace(trial, state=TrialState.FAIL, outcome=failed)
    results = dataclasses.replace(results, trials=(lost, *results.trials[1:]))
    store = write_store(results)
    store.set_info("notes", [f"{URL}: no winner of full."])
    assert CANARY in store.config.database_url  # the driver's own connection
    stored = everything_in(database)
    assert "Lost postgresql://me:***@db.example/s" in stored
    assert CANARY not in stored
    read = read_study(database)
    assert CANARY not in json.dumps(read.to_dict()) + repr(store.results())
    paths = write_report(store.results(), tmp_path / "report")
    files = [path for path in paths.html.parent.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    assert CANARY not in written(best_configuration(store.results(), "lift"))
    # And the study goes on, also with another password.
    again = make_url(database).set(password="other").render_as_string(hide_password=False)
    storage = config.storage.model_copy(update={"database": again})
    assert StudyStore.create(config.model_copy(update={"storage": storage})).extension is None


@pytest.mark.parametrize(
    "settings",
    [
        {"storage": {"database": URL.replace("postgresql", "mysql")}},
        {"storage": {"database": URL.replace("/s", "")}},
        {"storage": {"database": [URL]}},
        {"storage": {"databse": URL}},
        {"storage": {"database": f"postgresql://me:x@y{CANARY}@db/s"}},
        {"storage": {"database": f"me:x@{CANARY}@db"}},
        {"storage": {"results": f"s3://ID:a/{CANARY}@bucket/study"}},
        {"storage": {"results": f"s3://bucket/study?secret_key={CANARY}"}},
        {"tracking": URL},
        {"data": {"train": {URL: 1}, "text": "text"}},
    ],
    ids=lambda settings: str(settings)[:40],
)
def test_it_is_in_no_message_about_a_study_file(settings: dict[str, Any], tmp_path: Path) -> None:
    study = {
        "name": "mine",
        "model": {"path": str(tmp_path)},
        "data": {"train": "train.jsonl", "text": "text"},
        "dataset_sizes": 100,
        "arms": ["full"],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study | settings))
    for read in (lambda: parse_config(path.read_text(), tmp_path), lambda: load_config(path)):
        if "results" in str(settings) and read.__code__.co_names[0] == "parse_config":
            continue  # it looks at no place
        with pytest.raises(ConfigError) as caught:
            read()
        assert CANARY not in str(caught.value)


def test_it_is_in_no_other_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Cannot open the study storage") as caught:
        read_study(f"postgresql://me:{CANARY}@127.0.0.1:1/none")
    assert CANARY not in str(caught.value)


def test_it_is_in_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with libraries_to(tmp_path / "study.log"):
        try:
            raise ConnectionError(f"no route to {URL}")
        except ConnectionError:
            logging.getLogger("a.library").exception("lost %s", URL)
    log = capsys.readouterr().err
    assert "ConnectionError: no route to postgresql://me:***@db.example/s" in log
    assert CANARY not in log
