"""A trial's newest checkpoint as files: complete or absent, whenever the processes die.

``step-N/`` holds ``rank<r>.json`` and ``rank<r>.safetensors`` of every rank, and
``common.safetensors`` with what all ranks hold alike. It is written under another name and
renamed when every rank's files are on the disk. Nothing is pickled.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from study.basics.owned import remove_checkpoint
from study.basics.text_format import byte_size
from study.training.placement import Placement

log = logging.getLogger(__name__)

FORMAT = 2
_PARTIAL = "partial"
_STEP = "step-"
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError)
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Saved:
    """What one rank wrote: a JSON document, its own tensors and the common ones by name (CPU)."""

    document: dict[str, Any]
    tensors: dict[str, Tensor]


class Checkpoints(ABC):
    """The checkpoint of one trial, seen by one rank, wherever it lies.

    Every rank makes the same calls in the same order.

    Args:
        place: names it in warnings.
        identity: plain values; a checkpoint written under any others is not taken.

    Attributes:
        failed: nothing can be written any more.
    """

    _unwritable: tuple[type[Exception], ...]
    _consequence: str
    """Of what is in `_unwritable`."""

    def __init__(
        self, place: Path | str, placement: Placement, identity: Mapping[str, Any]
    ) -> None:
        self._place, self._placement = place, placement
        # As JSON gives it back: tuples become lists.
        self._identity: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **identity}))
        self.failed = False

    @abstractmethod
    def write(self, step: int, document: Mapping[str, Any], own: Tensors, common: Tensors) -> None:
        """Replace the checkpoint by this one.

        If a rank cannot write, the old one stays and a warning is logged.

        Args:
            step: optimizer steps done; higher than any before.
            document: plain values of this rank.
            own: this rank's tensors, contiguous, on the CPU.
            common: tensors that all ranks hold alike; rank 0's are written. No name is in both.
        """

    @abstractmethod
    def read(self) -> Saved | None:
        """The checkpoint, the same one on every rank; None if there is none.

        One that is damaged or was written by another trial or kind of run is removed with a
        warning.
        """

    @abstractmethod
    def remove(self) -> None:
        """Remove everything; gone on every rank when it returns."""

    def _agreed(self, step: int, saved: Saved | None) -> Saved | None:
        """What this rank has read if all have read that step, else None; then all of it goes.

        Args:
            step: -1 where nothing could be read.
        """
        newest, oldest = self._placement.max(step), -self._placement.max(-step)
        if oldest == newest >= 0:
            return saved
        self.remove()
        return None

    def _all_ranks(self, action: Callable[[], None]) -> bool:
        """Whether `action` succeeded on every rank; all wait for each other here."""
        try:
            action()
            failed = False
        except self._unwritable as error:
            log.warning("%s: %s: %s", self._place, self._consequence, error)
            failed = True
        return not self._placement.max(failed)

    def _wait(self) -> None:
        self._placement.max(0)

    def _write_files(
        self, folder: Path, step: int, document: Mapping[str, Any], own: Tensors, common: Tensors
    ) -> list[Path]:
        """This rank's files, rank 0 the common one too, in a local folder that is there."""
        words, tensors, shared = self._files_in(folder)
        content = {"identity": self._identity, "step": step, "document": document}
        words.write_text(json.dumps(content), encoding="utf-8")
        save_file(dict(own), tensors)
        if self._placement.rank:
            return [words, tensors]
        save_file(dict(common), shared)
        return [words, tensors, shared]

    def _read_files(self, folder: Path) -> Saved:
        """What this rank has written, and the common tensors.

        Raises:
            ValueError: it was written under another identity.
        """
        words, tensors, shared = self._files_in(folder)
        content = json.loads(words.read_text(encoding="utf-8"))
        found = content["identity"]
        keys = self._identity.keys() | found.keys()
        other = sorted(key for key in keys if self._identity.get(key) != found.get(key))
        if other:
            raise ValueError(f"its checkpoint is of another {', '.join(other)}")
        return Saved(content["document"], load_file(shared) | load_file(tensors))

    def _files_in(self, folder: Path) -> list[Path]:
        """This rank's document and tensors, and the common tensors."""
        rank = self._placement.rank
        names = (f"rank{rank}.json", f"rank{rank}.safetensors", "common.safetensors")
        return [folder / name for name in names]


class CheckpointFolder(Checkpoints):
    """In a folder that the ranks share; made when first needed."""

    _unwritable = (OSError, SafetensorError)
    _consequence = "training goes on without checkpoints"

    def __init__(self, root: Path, placement: Placement, identity: Mapping[str, Any]) -> None:
        super().__init__(root, placement, identity)
        self._root = root

    def write(self, step: int, document: Mapping[str, Any], own: Tensors, common: Tensors) -> None:
        """As `Checkpoints.write`; after a failure later calls do nothing. If it would take more
        than half of what is free on the disk, only this call does nothing."""
        if self.failed or not self._has_room(own, common):
            return
        partial = self._root / _PARTIAL
        self.failed = not (
            self._all_ranks(lambda: self._prepare(partial))
            and self._all_ranks(
                lambda: _flush(*self._write_files(partial, step, document, own, common))
            )
            and self._all_ranks(lambda: self._publish(partial, step))
        )
        if self.failed and self._placement.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)

    def read(self) -> Saved | None:
        steps = self._steps()
        step, saved = -1, None
        if steps:
            try:
                saved = self._read_files(self._root / f"{_STEP}{steps[-1]}")
                step = steps[-1]
            except UNREADABLE as error:
                log.warning("%s: the trial starts over: %s", self._root, error)
        return self._agreed(step, saved)

    def remove(self) -> None:
        if self._placement.rank == 0:
            remove_checkpoint(self._root)
        self._wait()

    def _has_room(self, own: Tensors, common: Tensors) -> bool:
        """Whether the disk would still have as much free as the checkpoint takes, on every rank."""
        parts = (own, common) if self._placement.rank == 0 else (own,)
        size = int(self._placement.sum(sum(t.nbytes for part in parts for t in part.values())))
        free = -self._placement.max(-_free_bytes(self._root))
        if free >= 2 * size:
            return True
        if self._placement.rank == 0:
            log.warning(
                "%s: no checkpoint of %s: the disk has %s free. Free some, or move storage.results",
                self._root,
                byte_size(size),
                byte_size(free),
            )
        return False

    def _prepare(self, partial: Path) -> None:
        if self._placement.rank == 0:
            if partial.exists():  # of a process that was killed while it wrote
                shutil.rmtree(partial)
            partial.mkdir(parents=True)

    def _publish(self, partial: Path, step: int) -> None:
        if self._placement.rank:
            return
        _flush(partial)
        old = self._steps()
        partial.rename(self._root / f"{_STEP}{step}")
        _flush(self._root)
        for number in old:
            shutil.rmtree(self._root / f"{_STEP}{number}", ignore_errors=True)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix(_STEP) for path in self._root.glob(f"{_STEP}*"))
        return sorted(int(name) for name in names if name.isdigit())


def _free_bytes(folder: Path) -> float:
    """Of the disk that `folder` is on, or will be; without limit if nobody knows: writing tells."""
    there = next((p for p in (folder, *folder.parents) if p.is_dir()), None)
    try:
        return math.inf if there is None else float(shutil.disk_usage(there).free)
    except OSError:
        return math.inf


def _flush(*paths: Path) -> None:
    """Wait until files' content, or folders' entries, are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
