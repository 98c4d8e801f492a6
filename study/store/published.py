"""A study whose results folder is a URL: this machine works on a copy, and publishes it.

At the URL lie ``results.json.gz`` (everything on record, what reports are made from),
``study.db`` (a snapshot of the SQLite database, if that is where the record is kept), ``data/``,
``logs/``, ``report/``, what trackers keep, and ``checkpoints/`` of trials that run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import sqlite3
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from study.basics.database_url import sqlite_path
from study.basics.errors import StoreError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.basics.text_files import write_text
from study.config.load import StudyConfig
from study.protocol.results import StudyResults, with_paused
from study.store.heartbeat import SILENT_SECONDS, beating, is_alive, sign_of_life

RESULTS = "results.json.gz"
_DATABASE, _LEASE, _MARK = "study.db", "driver.json", ".published"
_SETTLE_SECONDS = 0.5
_LEAST_SECONDS, _SHARE = 30.0, 0.03
"""Between two publications: at least so long, and so long that they take no more than this."""
_AFTER_TROUBLE_SECONDS = 60.0


def read_results(url: str) -> StudyResults:
    """What a study has published at its results URL, from any machine.

    Raises:
        StoreError: nothing is there, or it cannot be read.
    """
    remote = RemoteFolder(url)
    content = remote.read(RESULTS)
    if content is None:
        raise StoreError(
            f"No study at {url}: {RESULTS} is not there. It appears when the first trial ends; "
            "is this the storage.results of the study file?"
        )
    try:
        results = StudyResults.from_dict(json.loads(gzip.decompress(content)))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{url}/{RESULTS} is damaged, or of another version of this program: {error}."
        ) from error
    config = results.config
    # They may have been copied from elsewhere.
    here = config.at(config.storage.model_copy(update={"results": url.rstrip("/")}))
    # Its driver says that trials run, and cannot say so when it is killed.
    running = is_alive(_lease_in(remote.read(_LEASE)))
    trials = results.trials if running else with_paused(results.trials)
    return dataclasses.replace(results, config=here, trials=trials)


def record_of(results: StudyResults) -> bytes:
    """What ``results.json.gz`` says; `read_results` reads it back."""
    content = json.dumps(results.to_dict()).encode()
    return gzip.compress(content, compresslevel=6, mtime=0)


def fetch_data(url: str, folder: Path) -> None:
    """Copy the study's tokenised data to this node, unless they are there; processes of one node
    wait for each other.

    Args:
        url: the study's results.
        folder: the node's own, e.g. ``StudyPaths.data``.

    Raises:
        StoreError: they cannot be read.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    remote = RemoteFolder(url)
    with FileLock(folder / ".fetch.lock"):
        named = remote.read("data/current")
        if named is None:
            raise StoreError(f"{url}/data: the study's tokenised data are not there.")
        version = named.decode().strip()
        if not (folder / version / "summary.json").is_file():
            scratch = folder / f".tmp-{os.getpid()}"
            remote.download(f"data/{version}", scratch)
            os.replace(scratch, folder / version)
        (folder / "current").write_bytes(named)


def share_data(url: str, version: Path) -> None:
    """Let workers on other nodes find the tokenised data.

    Args:
        url: the study's results.
        version: the folder of their version, on the driver.

    Raises:
        StoreError: they cannot be written.
    """
    remote = RemoteFolder(url)
    current = remote.read("data/current")
    if current is None or current.decode().strip() != version.name:
        remote.upload(version, f"data/{version.name}", marked=True)
        remote.write("data/current", version.name.encode())


class SharedResults:
    """The driver's hand on a study's results URL.

    Args:
        config: a study whose `results_url` is not None.
        on_trouble: told once per outage while the study goes on.
    """

    def __init__(self, config: StudyConfig, on_trouble: Callable[[str], None]) -> None:
        assert config.results_url is not None
        self._url, self._paths = config.results_url, StudyPaths(config.results_dir)
        self._remote, self._on_trouble = RemoteFolder(self._url), on_trouble
        path = sqlite_path(config.database_url)
        self._database = path if path == self._paths.database.absolute() else None
        self._owner = uuid.uuid4().hex
        self._next, self._in_trouble, self._taken_over = 0.0, False, False

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """While the block runs no other driver may run the study.

        Raises:
            StoreError: another one does, on this machine or any other.
        """
        self._refuse_second_driver()
        self._write_lease()
        time.sleep(_SETTLE_SECONDS)  # two that claimed at once: the one that wrote last has it
        if self._owner_now() != self._owner:
            raise StoreError(f"The study at {self._url} was started elsewhere at this moment.")
        try:
            with beating(self._beat):
                yield
        finally:
            with contextlib.suppress(StoreError):
                if self._owner_now() == self._owner:
                    self._remote.remove(_LEASE)

    def pull(self) -> None:
        """Take up the published record, if another machine wrote it or this one lost its own."""
        if self._database is None:
            return
        self._paths.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._paths.root, prefix=".pull-") as scratch:
            found = Path(scratch) / _DATABASE
            if not self._remote.download(_DATABASE, found):
                return
            published = _fingerprint(found)
            if self._database.is_file() and published in self._marks():
                return  # nobody else has published since: what is here is as new, or newer
            # Event files and runs of Weights & Biases have names of their own; this is added to.
            self._remote.download(self._paths.mlflow.name, self._paths.mlflow)
            self._set_aside()
            os.replace(found, self._database)
        self._mark(published)

    def publish(self, results: Callable[[], StudyResults], *, now: bool = False) -> None:
        """Write what is on record to the URL, unless that was just done.

        Args:
            now: in any case, and raise where it fails; else trouble is told and it is tried again
                later.

        Raises:
            StoreError: another driver has taken the study over, whatever `now` is.
        """
        self._refuse_if_taken_over()
        if not now and time.monotonic() < self._next:
            return
        began = time.monotonic()
        try:
            # One that was stopped for a while learns only here that it was taken over.
            if self._owner_now() not in (None, self._owner):
                self._taken_over = True
            if not self._taken_over:
                # The record first: what reports are made from is never newer.
                self._publish_database()
                self._remote.write(RESULTS, record_of(results()))
        except (StoreError, OSError, sqlite3.Error) as error:
            if now:
                raise StoreError(
                    f"{error} Nothing is lost: everything is in {self._paths.root} on this "
                    "machine; mend the cause and run the study again."
                ) from error
            if not self._in_trouble:
                self._on_trouble(f"{error} The study goes on; trying again later")
            self._in_trouble = True
            self._next = time.monotonic() + _AFTER_TROUBLE_SECONDS
        else:
            self._refuse_if_taken_over()
            self._in_trouble = False
            took = time.monotonic() - began
            self._next = time.monotonic() + max(_LEAST_SECONDS, took / _SHARE)

    def finish(self, results: Callable[[], StudyResults]) -> None:
        """Publish everything, the study's log, and what trackers keep.

        Raises:
            StoreError: it cannot be written.
        """
        self.publish(results, now=True)
        if self._paths.log.is_file():
            self._remote.upload(self._paths.log, f"logs/{self._paths.log.name}")
        for kept in filter(Path.exists, self._paths.trackers):
            self._remote.upload(kept, kept.name)

    def _publish_database(self) -> None:
        if self._database is None or not self._database.is_file():
            return
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / _DATABASE
            # SQLite's own copy: consistent while the study writes.
            with (
                contextlib.closing(sqlite3.connect(self._database, timeout=60)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
            published = _fingerprint(copy)
            # Before: an upload whose answer is lost has come through all the same.
            self._mark(*self._marks(), published)
            self._remote.upload(copy, _DATABASE)
        self._mark(published)

    def _marks(self) -> list[str]:
        """Fingerprints of what this machine has published or taken up, as far as that may still be
        what is published."""
        try:
            found = json.loads((self._paths.root / _MARK).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def _mark(self, *fingerprints: str) -> None:
        write_text(self._paths.root / _MARK, json.dumps(fingerprints))

    def _set_aside(self) -> None:
        """Keep the database that another one replaces, with what SQLite needs to open it."""
        assert self._database is not None
        for suffix in ("", "-journal", "-wal", "-shm"):
            path = self._database.with_name(f"{self._database.name}{suffix}")
            aside = self._database.with_name(f"{self._database.stem}.replaced{suffix}")
            aside.unlink(missing_ok=True)
            if path.exists():
                os.replace(path, aside)

    def _refuse_second_driver(self) -> None:
        lease = _lease_in(self._remote.read(_LEASE))
        if is_alive(lease):
            age = max(0, round(time.time() - lease["time"]))
            raise StoreError(
                f"The study at {self._url} is already running: process {lease['pid']} on "
                f"{lease['host']} said so {age} s ago. Watch it with `study status "
                f"{self._url}`; if that machine is gone, wait {SILENT_SECONDS:.0f} s."
            )

    def _refuse_if_taken_over(self) -> None:
        if self._taken_over:
            raise StoreError(
                f"Another driver runs the study at {self._url} by now: this one was silent for too "
                "long. Watch that one with `study status`."
            )

    def _owner_now(self) -> str | None:
        """Who has the lease; None: nobody."""
        owner = _lease_in(self._remote.read(_LEASE)).get("owner")
        return None if owner is None else str(owner)

    def _write_lease(self) -> None:
        self._remote.write(_LEASE, json.dumps(sign_of_life(self._owner)).encode())

    def _beat(self) -> None:
        with contextlib.suppress(StoreError):  # `publish` tells
            if self._owner_now() != self._owner:
                self._taken_over = True
            if not self._taken_over:
                self._write_lease()


def _lease_in(content: bytes | None) -> dict[str, Any]:
    """A driver's sign of life; empty where there is none, or it is of no use to anybody."""
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
