"""An Optuna storage that waits for a database which is out of reach for a while."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage

from study.basics.errors import StorageLostError

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0

Waiting = Callable[[str], None]


class _Patient:
    """Repeats a storage's calls with growing pauses until they succeed or patience is used up.

    Args:
        inner: the storage, for who would not wait.
        patience_seconds: for one outage; after one that was longer no call waits any more, so that
            the study can stop.
        on_wait: told once per outage.
        sleep, clock: seconds.

    Raises:
        StorageLostError: by every call, once patience is used up.
    """

    def __init__(
        self,
        inner: BaseStorage,
        patience_seconds: float = PATIENCE_SECONDS,
        on_wait: Waiting = log.warning,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inner, self.patience_seconds, self.on_wait = inner, patience_seconds, on_wait
        self._sleep, self._clock = sleep, clock
        # Pauses need no seed: nothing of a study depends on them.
        self._jitter = random.Random()

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        began, pause, tries = self._clock(), _FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                return getattr(self.inner, name)(*args, **kwargs)
            except UpdateFinishedTrialError:
                if not tries:
                    raise
                return True  # the call before had come through, its answer had not
            except Exception as error:
                if not _is_outage(error):
                    raise
                reason = str(error.__cause__ or error).strip().splitlines()[0]
                if self._clock() - began >= self.patience_seconds:
                    self.patience_seconds = 0.0
                    raise StorageLostError(
                        f"The study's storage does not answer: {reason}. Everything it took is "
                        "kept; when it is back, run the study again."
                    ) from error
                log.warning("storage: %s: %s", name, error)
                if not tries:
                    self.on_wait(
                        f"The study's storage does not answer ({reason}); trying again for "
                        f"{self.patience_seconds:.0f} s"
                    )
            tries += 1
            self._sleep(pause * self._jitter.uniform(0.75, 1.25))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _is_outage(error: BaseException) -> bool:
    """Whether the same call may succeed later: the database is away, locked or full."""
    from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

    if isinstance(error, StorageInternalError):
        error = error.__cause__ or error
    return isinstance(error, InterfaceError | OperationalError | TimeoutError)


def _delegated(name: str) -> Callable[..., Any]:
    def call(self: _Patient, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, *args, **kwargs)

    call.__name__ = name
    return call


PatientStorage: Any = type(
    "PatientStorage",
    (_Patient, BaseStorage),
    {name: _delegated(name) for name in vars(BaseStorage) if not name.startswith("_")},
)
"""`_Patient` with every method of a storage."""
