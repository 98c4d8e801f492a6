"""Database URLs: whoever makes a study and whoever reads it take the same ones for the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from study.basics.database_url import DatabaseUrlError, file_url, sqlite_path
from study.basics.errors import ConfigError
from study.config.files import database_faults
from study.config.load import StudyConfig, parse_config
from study.protocol.records import BaseModelRecord
from study.reuse.past_studies import find_studies
from study.store.connect import stored_study_names, studies_at
from study.store.opening import open_study, read_study
from study.store.study_store import StudyStore
from tests.helpers.results import make_config

READERS: list[Callable[[str], object]] = [
    StudyStore.open, studies_at, stored_study_names, open_study, lambda url: find_studies([url]),
]  # fmt: skip
ODD_FOLDERS = ("what?a", "what?b", "100%25", "{host}", "a#b", "two words", "ä+b", "a:b@c")


def write_loss(config: StudyConfig, loss: float) -> None:
    StudyStore.create(config).set_info("base", BaseModelRecord(loss, loss, None).to_dict())


@pytest.mark.parametrize(
    "written",
    ["sqlite:///{}", "sqlite+pysqlite:///{}", "sqlite:///{}?timeout=30", "sqlite:///my.db"],
)
def test_what_a_study_can_be_made_at_can_be_read_there(tmp_path: Path, written: str) -> None:
    file = tmp_path / "my.db"
    plain = make_config().to_dict()
    plain["storage"] = {"results": "out", "database": written.format(file)}
    config = parse_config(plain, tmp_path)
    write_loss(config, 3.0)
    url = config.database_url
    assert file.is_file() and sqlite_path(url) == file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.db"]
    assert StudyStore.open(url).results().base == BaseModelRecord(3.0, 3.0, None)
    assert open_study(url).config.name == "synthetic"
    assert stored_study_names(url) == ["synthetic"]
    ((past,), trouble) = find_studies([url])
    assert past.name == "synthetic" and not trouble
    assert past.results().base is not None


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqlite://study.db", "three slashes"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:study.db?uri=true", "`file:` URI"),
        ("sqlite:///study.db?mode=ro", "`timeout`"),
        ("sqlite:///study.db?timeout=soon", "`timeout`"),
        ("sqlite:///study.db?isolation_level=EXCLUSIVE", "`timeout`"),
        ("sqlite+aiosqlite:///study.db", "`pysqlite`, not `aiosqlite`"),
        ("postgresql+asyncpg://me:hunter2@host/study", "`psycopg2`, not `asyncpg`"),
        ("postgresql+pg8000://me:hunter2@host/study", "`psycopg2`, not `pg8000`"),
        ("postgresql://me:hunter2@host", "names no database"),
        ("mysql://me:hunter2@host/study", "not `mysql`"),
    ],
)
def test_what_a_study_cannot_be_made_at_is_refused_by_everybody_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, rule: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (fault,) = database_faults(url)
    assert rule in fault.rule and "hunter2" not in str(fault)
    with pytest.raises(ConfigError, match=r"storage\.database"):
        parse_config({**make_config().to_dict(), "storage": {"database": url}}, tmp_path)
    for reader in READERS:
        with pytest.raises(DatabaseUrlError) as raised:
            reader(url)
        assert fault.rule in str(raised.value) and "hunter2" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    for number, name in enumerate(ODD_FOLDERS):
        config = make_config(storage={"results": str(tmp_path / name)})
        write_loss(config, float(number))
        assert make_url(config.database_url).database == str(tmp_path / name / "study.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ODD_FOLDERS)
    for number, name in enumerate(ODD_FOLDERS):
        base = BaseModelRecord(float(number), float(number), None)
        assert read_study(tmp_path / name).base == base
        assert open_study(file_url(tmp_path / name / "study.db")).base == base
        assert stored_study_names(file_url(tmp_path / name / "study.db")) == ["synthetic"]
        ((past,), _) = find_studies([str(tmp_path / name)])
        assert past.results().base == base


def test_a_server_is_waited_for_as_long_as_its_url_says(postgres_database: str) -> None:
    joint = "&" if "?" in postgres_database else "?"
    url = f"{postgres_database}{joint}connect_timeout=3"
    write_loss(make_config(storage={"database": url}), 2.0)
    assert stored_study_names(url) == ["synthetic"] and list(studies_at(url)[1]) == ["synthetic"]
    assert open_study(url).base == BaseModelRecord(2.0, 2.0, None)
