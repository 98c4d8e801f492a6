"""A driver's sign of life: written again and again, so that everybody can tell whether it runs."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

BEAT_SECONDS, SILENT_SECONDS = 30.0, 120.0
"""Between two signs; without one for so long, the driver is gone."""


def sign_of_life(owner: str = "") -> dict[str, Any]:
    """This process's, at this moment, as plain values.

    Args:
        owner: tells it from one that has the same process id elsewhere.
    """
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "processes": _process_space(),
        "owner": owner or uuid.uuid4().hex,
        "time": time.time(),
    }


def is_alive(sign: object) -> bool:
    """Whether the process that gave a sign of life still runs, as far as anybody can tell: a
    machine that it did not run on waits until it has been silent for `SILENT_SECONDS`."""
    if not isinstance(sign, Mapping):
        return False
    try:
        here = sign.get("processes") == _process_space()
        gone = here and not os.path.exists(f"/proc/{int(sign['pid'])}")
        return not gone and time.time() - float(sign["time"]) < SILENT_SECONDS
    except (KeyError, TypeError, ValueError):
        return False  # of no use to anybody


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Calls `beat` every `BEAT_SECONDS` from a thread of its own while the block runs."""
    left = threading.Event()

    def run() -> None:
        while not left.wait(BEAT_SECONDS):
            beat()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _process_space() -> str:
    """Where a process id means the same process: containers have ids of their own, and a host's
    name may be another's too."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown: {uuid.uuid4().hex}"  # it is waited for
