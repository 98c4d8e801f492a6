"""Ctrl-C while trials run: the first lets them write checkpoints, the second leaves at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Protocol, Self

GRACE_SECONDS = 120.0
"""Time that trials get to write their checkpoints."""


class Pausable(Protocol):
    """What is told to pause."""

    def interrupt(self) -> None:
        """Let every trial write a checkpoint and pause."""


class Told(Protocol):
    """Who hears that it does."""

    def message(self, text: str) -> None:
        """Something a person waiting may want to know; from any thread."""


class PauseOnInterrupt:
    """A context manager that takes SIGINT and SIGTERM over; outside the main thread it does
    nothing.

    The first signal asks `pool` to pause, and whatever runs inside ends by itself. A second one,
    or the end of the grace period, raises KeyboardInterrupt in the main thread.

    Attributes:
        requested: a signal came.
    """

    def __init__(
        self, pool: Pausable, observer: Told, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self.requested = False
        self._pool, self._observer, self._grace = pool, observer, grace_seconds
        self._signalled, self._left = threading.Event(), threading.Event()
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
            threading.Thread(target=self._pause, name="pause", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._signalled.set()
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # Nothing that takes a lock of Ray's: the interrupted code may hold it.
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._signalled.set()

    def _pause(self) -> None:
        self._signalled.wait()
        if self._left.is_set():
            return
        self._observer.message(
            "Stopping: trials write checkpoints. Ctrl-C once more leaves at once"
        )
        self._pool.interrupt()
        if not self._left.wait(self._grace):
            signal.raise_signal(signal.SIGINT)
