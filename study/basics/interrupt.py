"""Ctrl-C while trials run: the first lets them write checkpoints, the second leaves at once."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Protocol, Self

log = logging.getLogger(__name__)

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

    The first signal asks `pool` to pause, and whatever runs inside ends by itself. A second Ctrl-C,
    or the end of the grace period, whatever became of the asking, raises KeyboardInterrupt in the
    main thread. A second SIGTERM does not: batch systems send it to a job and to its steps.

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
        self._main = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._main = threading.get_ident()
            threading.Thread(target=self._pause, name="pause", daemon=True).start()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._signalled.set()
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # Nothing that takes a lock of Ray's: the interrupted code may hold it.
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        self._signalled.set()

    def _pause(self) -> None:
        self._signalled.wait()
        if self._left.is_set():
            return
        # In a thread of its own: it may raise or wait, and the grace period ends all the same.
        threading.Thread(target=self._ask, name="ask to pause", daemon=True).start()
        if not self._left.wait(self._grace):
            # To the main thread, which may be in a call of the system's: that one ends with it.
            signal.pthread_kill(self._main, signal.SIGINT)

    def _ask(self) -> None:
        words = "Stopping: trials write checkpoints. Ctrl-C once more leaves at once"
        for ask in (lambda: self._observer.message(words), self._pool.interrupt):
            try:
                ask()
            except Exception:
                log.exception("asked to stop")
