"""Hidden states on a node's disk: one row of bytes per example, shared by all trials there.

A row is written first and its checksum after it, so a reader that finds a checksum finds the row,
whoever wrote it and whenever that process was killed. A row that does not fit its checksum (a
power cut, two writers at once) counts as absent. Writing goes through `pwrite`, so a full disk is
an error that can be caught; reading is through memory maps, so the system's page cache serves all
workers of the node.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from study.basics.owned import is_marked, mark
from study.basics.text_files import write_text

log = logging.getLogger(__name__)

_PRESENT = 1 << 32
_ROWS, _INDEX = ".rows", ".index"
_EXACT = "exact.json"
_ABANDONED_SECONDS = 24 * 3600
"""Rows of another host that nobody has used for so long."""


class HiddenRows:
    """Hidden states of one split's examples at one boundary. Keep it open while it is in use: an
    open file is never evicted.

    Args:
        path: without suffix.
        offsets: (examples + 1,) where each example's tokens begin.
        token_bytes: bytes of one token's hidden state.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, path: Path, offsets: np.ndarray, token_bytes: int) -> None:
        self._offsets = np.asarray(offsets, dtype=np.int64) * token_bytes
        examples, size = len(offsets) - 1, int(self._offsets[-1])
        self._rows_file = _open_shared(path.with_name(path.name + _ROWS), size)
        self._index_file = _open_shared(path.with_name(path.name + _INDEX), examples * 8)
        self._rows = np.memmap(path.with_name(path.name + _ROWS), np.uint8, "r", shape=(size,))
        self._index = np.memmap(
            path.with_name(path.name + _INDEX), np.uint64, "r", shape=(examples,)
        )
        self._verified = np.zeros(examples, dtype=bool)

    def present(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """(ids,) bool: whose rows are here."""
        return np.asarray(self._index[np.asarray(ids, dtype=np.int64)] != 0)

    def read(self, example: int) -> np.ndarray | None:
        """(bytes,) uint8: an example's row, or None if it is absent or damaged."""
        checksum = int(self._index[example])
        if not checksum:
            return None
        row = self._rows[self._offsets[example] : self._offsets[example + 1]]
        if not self._verified[example]:
            if checksum != _checksum(row):
                return None
            self._verified[example] = True
        return row

    def write(self, example: int, row: np.ndarray) -> int:
        """Keep a row, (bytes,) uint8, unless it is here already; the bytes written.

        Raises:
            OSError: the disk is full.
        """
        if self.read(example) is not None:
            return 0
        if os.pwrite(self._rows_file, row.data, int(self._offsets[example])) < row.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the next byte would say so
        checksum = np.uint64(_checksum(row))
        os.pwrite(self._index_file, checksum.tobytes(), example * 8)
        return row.nbytes

    def missing_bytes(self, ids: np.ndarray) -> int:
        """Bytes that the absent rows among `ids` would take."""
        absent = np.asarray(ids)[~self.present(ids)]
        return int((self._offsets[absent + 1] - self._offsets[absent]).sum())

    def touch(self) -> None:
        """Note that it is in use: what has not been used for longest is evicted first."""
        with contextlib.suppress(OSError):  # a hint only
            os.utime(self._rows_file)

    def close(self) -> None:
        """Let others evict it."""
        del self._rows, self._index
        os.close(self._rows_file)
        os.close(self._index_file)


@dataclass(frozen=True)
class PrefixStore:
    """A node's folder of hidden states, for any number of processes at once.

    Attributes:
        root: the folder.
        max_bytes: at most so much disk is used.
        min_free_bytes: so much of the disk is left to others.
        hosts: holds `root` and other hosts' folders, which may never come back (pods have a new
            name each time): what nobody used there for a day counts and goes like this node's
            own when a trial makes room. None: `root` stands alone.
    """

    root: Path
    max_bytes: int
    min_free_bytes: int
    hosts: Path | None = None

    def open(self, key: str, name: str, offsets: np.ndarray, token_bytes: int) -> HiddenRows:
        """The rows called `name` among those of `key`, made if there are none.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = self.root / key
        mark(folder)
        return HiddenRows(folder / name, offsets, token_bytes)

    def fill_rate(self, key: str, seconds: float, token_blocks: float) -> float:
        """Seconds that one token takes to pass one block, computed and kept: as just measured,
        and remembered for those who only read; 0.0 if nobody has filled anything yet."""
        path = self.root / key / "fill_rate.json"
        try:
            if token_blocks:
                write_text(path, json.dumps(seconds / token_blocks))
                return seconds / token_blocks
            return float(json.loads(path.read_text()))
        except (OSError, ValueError):  # a full disk, a folder that was cleaned meanwhile
            return seconds / token_blocks if token_blocks else 0.0

    def verified(self, key: str) -> set[int]:
        """Boundaries at which leaving out the prefix was found exact."""
        try:
            return set(json.loads((self.root / key / _EXACT).read_text()))
        except (OSError, ValueError):
            return set()

    def set_verified(self, key: str, boundaries: Iterable[int]) -> None:
        """Remember these boundaries besides those known.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.root / key / _EXACT
        write_text(path, json.dumps(sorted(self.verified(key) | set(boundaries))))

    def lock(self) -> FileLock:
        """Held while one process weighs what fits and evicts the rest."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock")

    def used_bytes(self) -> int:
        """Disk blocks in use; rows that nobody wrote take none."""
        return sum(_allocated(path) for path in _row_files(self.root))

    def room(self) -> int:
        """Bytes that may still be written; negative when over the budget."""
        return self._room_beside(self.used_bytes())

    def evict(self, needed: int, keep: Collection[tuple[str, str]]) -> None:
        """Remove rows that no process has open, longest unused first, until `needed` bytes fit.

        Args:
            keep: key and name of the rows that stay, as `open` takes them.
        """
        kept = {self.root / key / (name + _ROWS) for key, name in keep}
        abandoned = self._abandoned()
        used = self.used_bytes() + sum(map(_allocated, abandoned))
        rows = [
            p for p in [*_row_files(self.root), *abandoned] if p.suffix == _ROWS and p not in kept
        ]
        for path in sorted(rows, key=_last_used):
            if self._room_beside(used) >= needed:
                return
            used -= _remove_unused(path)

    def _room_beside(self, used: int) -> int:
        free = shutil.disk_usage(self.root).free - self.min_free_bytes
        return min(self.max_bytes - used, free)

    def _abandoned(self) -> list[Path]:
        """Files of other hosts that nobody has used for a day."""
        if self.hosts is None:
            return []
        others = [p for p in self.hosts.iterdir() if p != self.root]
        limit = time.time() - _ABANDONED_SECONDS
        rows = (p for other in others for p in _row_files(other) if p.suffix == _ROWS)
        old = [p for p in rows if _last_used(p) < limit]
        return [*old, *(p.with_suffix(_INDEX) for p in old)]


def cache_key(parts: object) -> str:
    """A folder's name for everything that hidden states depend on, as JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _checksum(row: np.ndarray) -> int:
    return _PRESENT | zlib.crc32(row.data)


def _open_shared(path: Path, size: int) -> int:
    """Open for writing under a shared lock, grown to `size` bytes of holes."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file).st_nlink:  # else evicted between opening and locking
                if os.fstat(file).st_size < size:
                    os.ftruncate(file, size)
                os.utime(file)
                return file
        except OSError:
            os.close(file)
            raise
        os.close(file)


def _row_files(folder: Path) -> list[Path]:
    keys = [p for p in folder.glob("*/") if is_marked(p) or (p / _EXACT).is_file()]
    return [p for key in keys for p in key.iterdir() if p.suffix in (_ROWS, _INDEX)]


def _remove_unused(rows: Path) -> int:
    """The bytes that were freed; 0 if a process has the rows open, or they are not ours to take."""
    index = rows.with_suffix(_INDEX)
    file = None
    try:
        file = os.open(rows, os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed = _allocated(rows) + _allocated(index)
        # The checksums first: rows without them are merely absent.
        index.unlink(missing_ok=True)
        rows.unlink(missing_ok=True)
        log.info("removed hidden states %s/%s", rows.parent.name, rows.stem)
        return freed
    except OSError as error:
        log.debug("hidden states %s stay: %s", rows, error)
        return 0
    finally:
        if file is not None:
            os.close(file)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
