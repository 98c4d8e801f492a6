"""A study whose results folder is a URL: what is published, taken up again, and refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import study.store.heartbeat
import study.store.published
from study.basics.errors import StoreError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.config.load import StudyConfig
from study.protocol.results import StudyResults, published_config
from study.store.published import SharedResults, fetch_data, read_results, share_data
from tests.helpers.results import make_config, make_results

Machine = Callable[[str], SharedResults]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/study"


@pytest.fixture
def machine(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """By its name: a machine with a working folder of its own."""

    def make(name: str) -> SharedResults:
        monkeypatch.setenv("STUDY_CACHE", str(tmp_path / name))
        told: list[str] = []
        shared = SharedResults(config_at(url), told.append)
        shared.told = told  # type: ignore[attr-defined]
        return shared

    return make


def config_at(url: str) -> StudyConfig:
    return make_config(storage={"results": url})


def write_database(config: StudyConfig, value: int) -> None:
    path = StudyPaths(config.results_dir).database
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (v)")
        connection.execute("INSERT INTO t VALUES (?)", (value,))


def read_database(config: StudyConfig) -> list[int]:
    with sqlite3.connect(StudyPaths(config.results_dir).database) as connection:
        return [row[0] for row in connection.execute("SELECT v FROM t")]


def test_results_travel_through_json_unchanged() -> None:
    results = make_results(failures=("full-n64-r0-s0",), progress=0.7)
    assert StudyResults.from_dict(json.loads(json.dumps(results.to_dict()))) == results


def test_what_is_published_is_read_from_any_machine(url: str, machine: Machine) -> None:
    results = make_results(config=config_at(url))
    machine("one").publish(lambda: results, now=True)
    assert read_results(url) == results
    with pytest.raises(StoreError, match=r"No study at .*elsewhere"):
        read_results(f"{url}/elsewhere")
    RemoteFolder(url).write(study.store.published.RESULTS, b"no gzip")
    with pytest.raises(StoreError, match="is damaged, or of another version"):
        read_results(url)


def test_publishing_takes_little_time(machine: Machine) -> None:
    asked = []
    shared = machine("one")

    def results() -> StudyResults:
        asked.append(1)
        return make_results(sizes=[64], replicates=1)

    for _ in range(5):
        shared.publish(results)
    assert len(asked) == 1  # the next one is due in half a minute
    shared.publish(results, now=True)
    assert len(asked) == 2


def test_another_machine_goes_on_from_the_published_record(url: str, machine: Machine) -> None:
    config = config_at(url)
    first = machine("one")
    write_database(config, 1)
    first.publish(make_results, now=True)
    write_database(config, 2)  # a driver that is killed before it publishes
    machine("one").pull()
    assert read_database(config) == [1, 2], "what this machine has is newer"

    second = machine("two")
    second.pull()
    assert read_database(config) == [1]
    write_database(config, 3)
    second.publish(make_results, now=True)

    machine("one").pull()
    assert read_database(config) == [1, 3], "another machine has gone on since"
    kept = StudyPaths(config.results_dir).root / "study.replaced"
    assert kept.is_file(), "and nothing is thrown away"


def test_a_first_run_finds_nothing_to_take_up(url: str, machine: Machine) -> None:
    shared = machine("one")
    shared.pull()
    assert not StudyPaths(config_at(url).results_dir).database.exists()


def test_a_second_driver_is_refused_while_the_first_one_lives(
    url: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine("one"), machine("two")
    with first.claimed():
        with pytest.raises(StoreError, match=rf"already running: process {os.getpid()} on"):
            second.claimed().__enter__()
        # One that has not been heard of for a while is gone.
        monkeypatch.setattr(study.store.heartbeat, "SILENT_SECONDS", -1.0)
        with second.claimed():
            pass
    assert "driver.json" not in RemoteFolder(url).names()
    with second.claimed():
        pass


def test_a_driver_that_died_on_this_machine_is_not_waited_for(url: str, machine: Machine) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    shared = machine("one")
    shared._write_lease()
    lease = json.loads(RemoteFolder(url).read("driver.json") or b"")
    RemoteFolder(url).write("driver.json", json.dumps(lease | {"pid": gone.pid}).encode())
    with shared.claimed():
        pass


def test_trouble_is_told_once_and_raised_at_the_end(
    url: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.basics.remote._PAUSE_SECONDS", 0.0)
    shared = machine("one")
    monkeypatch.setattr(study.store.published, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(study.store.published, "_SHARE", 1e9)
    (tmp_path / "bucket").write_text("a file is in the way")
    for _ in range(3):
        shared.publish(make_results)
    assert len(shared.told) == 1 and "The study goes on" in shared.told[0]
    with pytest.raises(StoreError, match="Nothing is lost: everything is in"):
        shared.publish(make_results, now=True)
    (tmp_path / "bucket").unlink()
    shared.publish(make_results, now=True)
    assert read_results(url).trials == make_results().trials


def test_a_driver_that_was_taken_over_publishes_nothing_and_leaves_the_lease(
    url: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study.store.heartbeat, "BEAT_SECONDS", 0.05)
    remote, lease = RemoteFolder(url), study.store.published._LEASE
    shared = machine("one")
    with shared.claimed():
        other = json.dumps({"owner": "other", "host": "h", "pid": 1, "time": time.time()}).encode()
        # The beat in progress may still write over it once.
        while not shared._taken_over:
            remote.write(lease, other)
            time.sleep(0.2)
        with pytest.raises(StoreError, match="Another driver runs the study"):
            shared.publish(make_results)
    assert remote.read(lease) == other and remote.read(study.store.published.RESULTS) is None


def test_a_rollback_journal_of_the_old_database_is_not_left_to_the_new_one(
    url: str, machine: Machine
) -> None:
    first = machine("one")
    write_database(config_at(url), 1)
    first.publish(make_results, now=True)
    second = machine("two")
    write_database(config_at(url), 2)
    database = StudyPaths(config_at(url).results_dir).database
    journal = database.with_name("study.db-journal")
    journal.write_bytes(b"of the old one")
    second.pull()
    assert read_database(config_at(url)) == [1] and not journal.exists()


def test_the_place_is_the_same_however_its_url_ends(url: str) -> None:
    assert config_at(f"{url}/").results_url == url


def test_a_database_password_is_in_nothing_that_is_published(url: str, machine: Machine) -> None:
    results = make_results()
    database = "postgresql://me:hunter2@db/s"
    storage = results.config.storage.model_copy(update={"database": database})
    config = results.config.model_copy(update={"storage": storage})
    machine("one").publish(lambda: dataclasses.replace(results, config=config), now=True)
    read = read_results(url)
    assert read.config.storage.database == "postgresql://me:***@db/s"
    assert "hunter2" not in json.dumps(published_config(config))


def test_nodes_fetch_the_data_once(url: str, machine: Machine, tmp_path: Path) -> None:
    machine("one")
    data = StudyPaths(config_at(url).results_dir).data
    (data / "v1").mkdir(parents=True)
    (data / "v1" / "summary.json").write_text("{}")
    (data / "v1" / "pool.tokens.npy").write_bytes(b"1234")
    with pytest.raises(StoreError, match="data are not there"):
        fetch_data(url, tmp_path / "node")
    share_data(url, data / "v1")
    fetch_data(url, tmp_path / "node")
    assert (tmp_path / "node/v1/pool.tokens.npy").read_bytes() == b"1234"
    assert (tmp_path / "node/current").read_text() == "v1"
    shutil.rmtree(tmp_path / "bucket/study/data/v1")  # it is not asked for again
    fetch_data(url, tmp_path / "node")


@pytest.mark.parametrize(
    ("results", "rule"),
    [
        ("s3://key:secret@bucket/x", "no credentials in a study file"),
        ("s3://", "names no bucket"),
        ("nonsense://bucket/x", "no filesystem is called `nonsense`"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_the_study_file(results: str, rule: str) -> None:
    from study.config.files import check_paths

    faults = [f for f in check_paths(config_at(results)) if f.path == "storage.results"]
    assert any(rule in fault.rule for fault in faults)
    assert all("secret" not in str(fault) for fault in faults)
