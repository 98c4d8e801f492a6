"""A file storage that stops working after so many calls, behind the URL ``faulty://``.

It is the worst that an object storage can be: what has been written of a file is there at once.
"""

from __future__ import annotations

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FaultyFileSystem(MemoryFileSystem):
    """Counts the calls that reach the storage and lets those from the `fails_at`-th on fail.

    Attributes:
        answer_lost: what fails has been done all the same.
        error: what is raised.
    """

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls = 0
    fails_at: int | None = None
    answer_lost = False
    error: type[BaseException] = ConnectionError

    @classmethod
    def break_down(cls, after: int, *, answer_lost: bool = False) -> None:
        """From now on only so many calls succeed."""
        cls.calls, cls.fails_at, cls.answer_lost = 0, after, answer_lost

    @classmethod
    def recover(cls) -> bool:
        """All is well again; whether a call had failed."""
        failed = cls.fails_at is not None and cls.calls > cls.fails_at
        cls.fails_at, cls.error = None, ConnectionError
        return failed

    @classmethod
    def forget(cls) -> None:
        cls.recover()
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]

    @classmethod
    def reached(cls) -> bool:
        """Counts a call; whether it comes through."""
        cls.calls += 1
        return cls.fails_at is None or cls.calls <= cls.fails_at

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("faulty://", "memory://"))
        return stripped

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if not self.reached():
            raise self.error("no answer")
        file = super()._open(path, mode, **options)
        return _Stream(file) if mode == "wb" else file


def _faulty(name: str) -> Any:
    plain = getattr(MemoryFileSystem, name)

    def call(self: FaultyFileSystem, *arguments: Any, **options: Any) -> Any:
        reached = self.reached()
        if not reached and not self.answer_lost:
            raise self.error("no answer")
        result = plain(self, *arguments, **options)
        if not reached:
            raise self.error("the answer is lost")
        return result

    return call


for _name in ("info", "cp_file", "_rm", "ls"):
    setattr(FaultyFileSystem, _name, _faulty(_name))


class _Stream:
    """To a file of the storage; half of what cannot be written is."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        reached = FaultyFileSystem.reached()
        written: int = self._file.write(data if reached else bytes(data)[: len(data) // 2])
        if not reached:
            raise FaultyFileSystem.error("no answer")
        return written

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
