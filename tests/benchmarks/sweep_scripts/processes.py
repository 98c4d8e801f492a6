"""Runs a program in a process of its own and watches the memory of everything it starts."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECONDS = 20.0
"""For a program's processes to go after the program itself."""


@dataclass(frozen=True)
class Run:
    """One program from its start to its end.

    Attributes:
        started: seconds since the epoch.
        seconds: until the program's own process ended.
        exit_code: None: it ran into the time limit.
        peak_bytes: largest memory of its whole process tree, pages that processes share
            counted once (PSS).
        left_over: its processes that had to be killed after it.
    """

    started: float
    seconds: float
    exit_code: int | None
    peak_bytes: int
    left_over: int


def adopt_orphans() -> None:
    """Become the parent of every orphaned descendant: whatever a program starts stays in sight,
    also once the process that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(command: Sequence[str], env: Mapping[str, str], log: Path, limit_seconds: float) -> Run:
    """Run `command`, its output going to `log`; nothing of it is left running afterwards."""
    with log.open("w") as output, _TreeMemory() as memory:
        started, before = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            exit_code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            exit_code = None
            process.kill()
        except BaseException:
            process.kill()
            raise
        finally:
            seconds = time.perf_counter() - before
            left_over = _clear()
    return Run(started, seconds, exit_code, memory.peak_bytes, left_over)


def _clear() -> int:
    """Wait until every descendant is gone, kill those that stay, and count them."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (alive := _descendants()) and time.monotonic() < deadline:
        psutil.wait_procs(alive, timeout=0.2)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(alive)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


class _TreeMemory:
    """Samples the memory of this process's descendants in a thread, at most every half second
    and a twentieth of the time."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _TreeMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        spent = 0.0
        while not self._end.wait(max(0.5, 19 * spent)):
            before = time.perf_counter()
            self.peak_bytes = max(self.peak_bytes, sum(map(_pss, _descendants())))
            spent = time.perf_counter() - before


def _pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0  # it has just ended
