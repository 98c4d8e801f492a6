"""A study whose results folder is a URL: this machine works on a copy, and publishes it.

At the URL lie ``results.json.gz`` (everything on record, what reports are made from),
``study.db`` (a snapshot of the SQLite database, if that is where the record is kept), ``data/``,
``logs/``, ``report/``, what trackers keep, and ``checkpoints/`` of trials that run.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from study.config import StudyConfig
from study.errors import StoreError
from study.paths import StudyPaths
from study.remote import RemoteFolder
from study.results import StudyResults
from study.storage import sqlite_path

RESULTS = "results.json.gz"
_DATABASE, _LEASE, _MARK = "study.db", "driver.json", ".published"
_HEARTBEAT_SECONDS, _LEASE_SECONDS, _SETTLE_SECONDS = 30.0, 120.0, 0.5
_LEAST_SECONDS, _SHARE = 30.0, 0.03
"""Between two publications: at least so long, and so long that they take no more than this."""
_AFTER_TROUBLE_SECONDS = 60.0


def read_results(url: str) -> StudyResults:
    """What a study has published at its results URL, from any machine.

    Raises:
        StoreError: nothing is there, or it cannot be read.
    """
    content = RemoteFolder(url).read(RESULTS)
    if content is None:
        raise StoreError(
            f"No study at {url}: {RESULTS} is not there. It appears when the first trial ends; "
            "is this the storage.results of the study file?"
        )
    try:
        return StudyResults.from_dict(json.loads(gzip.decompress(content)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{url}/{RESULTS} is damaged, or of another version of this program: {error}."
        ) from error


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
        remote.upload(version, f"data/{version.name}")
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
        self._next, self._in_trouble = 0.0, False
        self._taken_over = threading.Event()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """While the block runs no other driver may run the study.

        Raises:
            StoreError: another one does, on this machine or any other.
        """
        self._refuse_second_driver()
        left = threading.Event()
        self._write_lease()
        time.sleep(_SETTLE_SECONDS)  # two that claimed at once: the one that wrote last has it
        if not self._is_ours():
            raise StoreError(f"The study at {self._url} was started elsewhere at this moment.")
        beats = threading.Thread(target=self._beat_until, args=(left,), daemon=True)
        beats.start()
        try:
            yield
        finally:
            left.set()
            beats.join()
            with contextlib.suppress(StoreError):
                if self._is_ours():
                    self._remote.remove(_LEASE)

    def pull(self) -> None:
        """Take up the published record, if another machine wrote it or this one lost its own."""
        if self._database is None:
            return
        published = self._remote.modified(_DATABASE)
        if published is None:
            return
        if self._database.is_file():
            if _read(self._mark) == repr(published):
                return  # nobody has published since: what is here is as new, or newer
            os.replace(self._database, self._database.with_suffix(".replaced"))
            for suffix in ("-journal", "-wal", "-shm"):  # they belong to the one that is replaced
                self._database.with_name(self._database.name + suffix).unlink(missing_ok=True)
        self._remote.download(_DATABASE, self._database)
        # Event files and runs of Weights & Biases have names of their own; this one is added to.
        self._remote.download(self._paths.mlflow.name, self._paths.mlflow)
        self._mark.write_text(repr(published))

    def publish(self, results: Callable[[], StudyResults], *, now: bool = False) -> None:
        """Write what is on record to the URL, unless that was just done.

        Args:
            now: in any case, and raise where it fails; else trouble is told and it is tried again
                later.

        Raises:
            StoreError: another driver has taken the study over, whatever `now` is.
        """
        if self._taken_over.is_set():
            raise StoreError(
                f"Another driver runs the study at {self._url} by now: this one was silent for too "
                "long. Watch that one with `study status`."
            )
        if not now and time.monotonic() < self._next:
            return
        began = time.monotonic()
        try:
            self._remote.write(RESULTS, record_of(results()))
            self._publish_database()
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
            self._in_trouble = False
            took = time.monotonic() - began
            self._next = time.monotonic() + max(_LEAST_SECONDS, took / _SHARE)

    def finish(self, results: Callable[[], StudyResults]) -> None:
        """Publish everything, the study's log, and what trackers keep.

        Raises:
            StoreError: it cannot be written.
        """
        if self._paths.log.is_file():
            self._remote.upload(self._paths.log, f"logs/{self._paths.log.name}")
        for kept in filter(Path.exists, self._paths.trackers):
            self._remote.upload(kept, kept.name)
        self.publish(results, now=True)

    @property
    def _mark(self) -> Path:
        return self._paths.root / _MARK

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
            self._remote.upload(copy, _DATABASE)
        self._mark.write_text(repr(self._remote.modified(_DATABASE)))

    def _refuse_second_driver(self) -> None:
        found = self._remote.read(_LEASE)
        if found is None:
            return
        try:
            lease: dict[str, Any] = json.loads(found)
            age = time.time() - float(lease["time"])
            here = lease["host"] == socket.gethostname()
            gone = here and not os.path.exists(f"/proc/{int(lease['pid'])}")
        except (ValueError, KeyError, TypeError):
            return  # of no use to anybody
        if age < _LEASE_SECONDS and not gone:
            raise StoreError(
                f"The study at {self._url} is already running: process {lease['pid']} on "
                f"{lease['host']} said so {max(0, round(age))} s ago. Watch it with `study status "
                f"{self._url}`; if that machine is gone, wait {_LEASE_SECONDS:.0f} s."
            )

    def _is_ours(self) -> bool:
        """Whether nobody else has taken the lease."""
        found = self._remote.read(_LEASE)
        try:
            return found is not None and json.loads(found)["owner"] == self._owner
        except (ValueError, KeyError, TypeError):
            return False

    def _write_lease(self) -> None:
        lease = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "owner": self._owner,
            "time": time.time(),
        }
        self._remote.write(_LEASE, json.dumps(lease).encode())

    def _beat_until(self, left: threading.Event) -> None:
        while not left.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(StoreError):  # `publish` tells
                if not self._is_ours():
                    self._taken_over.set()
                    return
                self._write_lease()


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
