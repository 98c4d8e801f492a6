"""A trial's newest checkpoint in object storage, where nodes share no disk.

The same files as in a local folder: ``step-N/`` holds every rank's and the common ones, and
``step-N/complete``, written last, says that they are all there. Each rank writes and reads its own.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.basics.errors import StoreError
from study.basics.remote import RemoteFolder
from study.training.checkpoint.files import UNREADABLE, Checkpoints, Saved, Tensors
from study.training.placement import Placement

log = logging.getLogger(__name__)

_COMPLETE = "complete"


class RemoteCheckpointFolder(Checkpoints):
    """In a folder at a URL. Every write is a new try: an outage ends."""

    _unwritable = (StoreError, *UNREADABLE)
    _consequence = "training goes on without a new checkpoint"

    def __init__(self, url: str, placement: Placement, identity: Mapping[str, Any]) -> None:
        self._folder = RemoteFolder(url)
        super().__init__(self._folder.url, placement, identity)

    def write(self, step: int, document: Mapping[str, Any], own: Tensors, common: Tensors) -> None:
        if self._all_ranks(lambda: self._upload(step, document, own, common)):
            self._all_ranks(lambda: self._publish(step))

    def read(self) -> Saved | None:
        step, saved, unreachable = -1, None, ""
        try:
            last = max(self._steps(), default=-1)
            if last >= 0:
                saved, step = self._download(last), last
        except StoreError as error:
            unreachable = str(error)
        except UNREADABLE as error:
            log.warning("%s: the trial starts over: %s", self._folder.url, error)
        if self._placement.max(bool(unreachable)):
            # It may be whole: better to try again in another worker group than to lose it.
            raise ConnectionError(unreachable or f"{self._folder.url}: another rank cannot read it")
        return self._agreed(step, saved)

    def remove(self) -> None:
        if self._placement.rank == 0:
            try:
                self._folder.remove("")
            except StoreError as error:
                log.warning("%s", error)
        self._wait()

    def _upload(
        self, step: int, document: Mapping[str, Any], own: Tensors, common: Tensors
    ) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            self._write_files(Path(scratch), step, document, own, common)
            # One that is complete already, before the trial was paused there, stays so.
            complete = self._folder.modified(f"step-{step}/{_COMPLETE}") is not None
            self._folder.upload(Path(scratch), f"step-{step}", marked=not complete)

    def _publish(self, step: int) -> None:
        if self._placement.rank:
            return
        old = self._steps()
        self._folder.write(f"step-{step}/{_COMPLETE}", b"")
        for number in old:
            if number != step:
                self._folder.remove(f"step-{number}")

    def _download(self, step: int) -> Saved:
        with tempfile.TemporaryDirectory() as scratch:
            for path in self._files_in(Path(scratch)):
                if not self._folder.download(f"step-{step}/{path.name}", path):
                    raise FileNotFoundError(f"step-{step}/{path.name}")
            found = self._read_files(Path(scratch))
            # Read, not mapped: the files go away.
            return Saved(found.document, {n: t.clone() for n, t in found.tensors.items()})

    def _steps(self) -> list[int]:
        """Those that are complete, ascending."""
        ends = (name for name in self._folder.names() if name.endswith(f"/{_COMPLETE}"))
        return sorted(int(name.split("/")[0].removeprefix("step-")) for name in ends)
