"""Results in a storage that fails at any moment: whole or not at all, and the newest wins."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from study.basics.errors import StoreError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.store.published import RESULTS, SharedResults, read_results
from tests.helpers.faulty_store import FaultyFileSystem
from tests.helpers.results import make_config, make_results

URL = "faulty://bucket/study"
CONFIG = make_config(storage={"results": URL})


@pytest.fixture(autouse=True)
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("study.basics.remote._PAUSE_SECONDS", 0.0)
    FaultyFileSystem.forget()
    yield
    FaultyFileSystem.forget()


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Machine]]:
    Machine.folder, Machine.patch = tmp_path, monkeypatch
    yield Machine


class Machine:
    """One with a working folder of its own; its database is a table of numbers."""

    folder: Path
    patch: pytest.MonkeyPatch

    def __init__(self, name: str) -> None:
        self.patch.setenv("STUDY_CACHE", str(self.folder / name))
        self.shared = SharedResults(CONFIG, print)
        self.database = StudyPaths(CONFIG.results_dir).database

    def record(self, number: int) -> None:
        self.database.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(self.database) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (v)")
            connection.execute("INSERT INTO t VALUES (?)", (number,))

    def publish(self, trials: float) -> None:
        results = make_results(config=CONFIG, progress=trials)
        self.shared.publish(lambda: results, now=True)

    def pulled(self) -> list[int]:
        self.shared.pull()
        return numbers(self.database)


def numbers(database: Path) -> list[int]:
    with sqlite3.connect(database) as connection:
        return [row[0] for row in connection.execute("SELECT v FROM t")]


def ended() -> int:
    """Of the results that anybody may read."""
    return sum(trial.finished is not None for trial in read_results(URL).trials)


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_publication_that_fails_anywhere_loses_nothing(
    machines: type[Machine], answer_lost: bool
) -> None:
    failed, after = True, 0
    while failed:
        FaultyFileSystem.forget()
        one = machines(f"one-{after}")
        one.record(1)
        one.publish(0.2)
        before = ended()
        one.record(2)
        FaultyFileSystem.break_down(after, answer_lost=answer_lost)
        try:
            one.publish(0.5)
        except StoreError as error:
            assert "Nothing is lost" in str(error)
        failed = FaultyFileSystem.recover()

        published = machines(f"reader-{after}").pulled()
        assert published in ([1], [1, 2]), f"call {after}: the old record or the new one, whole"
        assert ended() >= before
        if ended() > before:
            assert published == [1, 2], "no report is newer than the record"
        assert machines(f"one-{after}").pulled() == [1, 2], f"call {after}: this machine is newer"
        one.publish(0.5)
        assert machines(f"two-{after}").pulled() == [1, 2]
        assert not [name for name in RemoteFolder(URL).names() if name.endswith(".part")]
        after += 1
    assert after > 10


@pytest.mark.parametrize("answer_lost", [False, True])
def test_taking_a_record_up_that_fails_anywhere_loses_nothing(
    machines: type[Machine], answer_lost: bool
) -> None:
    failed, after = True, 0
    while failed:
        FaultyFileSystem.forget()
        one = machines(f"one-{after}")
        one.record(1)
        one.publish(0.2)
        two = machines(f"two-{after}")
        assert two.pulled() == [1]
        two.record(3)
        two.publish(0.5)
        one = machines(f"one-{after}")
        one.record(2)
        FaultyFileSystem.break_down(after, answer_lost=answer_lost)
        try:
            one.shared.pull()
        except StoreError:
            assert numbers(one.database) == [1, 2], "what is here stays until the other is here"
        failed = FaultyFileSystem.recover()
        assert machines(f"one-{after}").pulled() == [1, 3], "another machine has gone on since"
        assert numbers(one.database.with_suffix(".replaced")) == [1, 2]
        after += 1
    assert after > 3


def test_a_driver_that_slept_while_another_one_went_on_publishes_nothing(
    machines: type[Machine],
) -> None:
    one = machines("one")
    one.record(1)
    with one.shared.claimed():
        one.publish(0.2)
        # The machine wakes up; its next sign of life is half a minute away.
        other = {"owner": "other", "host": "h", "pid": 1, "time": time.time()}
        RemoteFolder(URL).write("driver.json", json.dumps(other).encode())
        two = machines("two")
        assert two.pulled() == [1]
        two.record(2)
        two.shared._owner = "other"
        two.publish(0.5)
        newest = ended()
        with pytest.raises(StoreError, match="Another driver runs the study"):
            one.publish(0.3)
        assert ended() == newest and machines("three").pulled() == [1, 2]
    assert RemoteFolder(URL).read("driver.json") == json.dumps(other).encode()


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt])
def test_a_file_that_is_not_written_to_its_end_leaves_the_old_one(
    error: type[BaseException],
) -> None:
    folder, failed, after = RemoteFolder(URL), True, 0
    while failed:
        folder.write("a", b"the old one")
        FaultyFileSystem.break_down(after)
        FaultyFileSystem.error = error
        with suppress(StoreError, KeyboardInterrupt):
            folder.write("a", b"the new one")
        failed = FaultyFileSystem.recover()
        assert folder.read("a") in (b"the old one", b"the new one"), f"call {after}"
        after += 1
    assert folder.read("a") == b"the new one"


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b", b"no gzip"])
def test_results_of_which_only_a_part_is_there_are_one_message(
    machines: type[Machine], damage: bytes
) -> None:
    machines("one").publish(0.2)
    whole = RemoteFolder(URL).read(RESULTS) or b""
    for content in (damage, whole[: len(whole) // 2], whole[:-9] + b"x" * 9):
        RemoteFolder(URL).write(RESULTS, content)
        with pytest.raises(StoreError, match="is damaged, or of another version"):
            read_results(URL)
