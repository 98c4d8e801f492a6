"""A trial's newest checkpoint in object storage, where nodes share no disk.

The same files as in a local folder: ``step-N/`` holds every rank's and the common ones, and
``step-N/complete``, written last, says that they are all there. Each rank writes and reads its own.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from study.errors import StoreError
from study.remote import RemoteFolder
from study.training.checkpoint_files import UNREADABLE, Saved, checked, file_names, with_format
from study.training.placement import Placement

log = logging.getLogger(__name__)

_COMMON = "common.safetensors"
_COMPLETE = "complete"
_LOST = (StoreError, *UNREADABLE)


class RemoteCheckpointFolder:
    """As `CheckpointFolder`.

    Args:
        url: the trial's folder.
        identity: plain values; a checkpoint written under any others is not taken.
    """

    def __init__(self, url: str, placement: Placement, identity: Mapping[str, Any]) -> None:
        self._folder, self._placement = RemoteFolder(url), placement
        self._identity = with_format(identity)
        self.failed = False

    def write(
        self,
        step: int,
        document: Mapping[str, Any],
        own: Mapping[str, Tensor],
        common: Mapping[str, Tensor],
    ) -> None:
        """Replace the checkpoint by this one; see `CheckpointFolder.write`."""
        content = {"identity": self._identity, "step": step, "document": document}
        if self._all_ranks(lambda: self._upload(step, content, own, common)):
            self._all_ranks(lambda: self._publish(step))

    def read(self) -> Saved | None:
        """The checkpoint, the same one on every rank; None if there is none."""
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
        newest, oldest = self._placement.max(step), -self._placement.max(-step)
        if oldest == newest >= 0:
            return saved
        self.remove()
        return None

    def remove(self) -> None:
        """Remove everything; gone on every rank when it returns."""
        if self._placement.rank == 0:
            try:
                self._folder.remove("")
            except StoreError as error:
                log.warning("%s", error)
        self._placement.max(0)

    def _all_ranks(self, action: Callable[[], None]) -> bool:
        try:
            action()
            failed = False
        except _LOST as error:
            log.warning(
                "%s: training goes on without a new checkpoint: %s", self._folder.url, error
            )
            failed = True
        return not self._placement.max(failed)

    def _upload(
        self,
        step: int,
        content: Mapping[str, Any],
        own: Mapping[str, Tensor],
        common: Mapping[str, Tensor],
    ) -> None:
        document, tensors = file_names(self._placement.rank)
        with tempfile.TemporaryDirectory() as scratch:
            save_file(dict(own), Path(scratch) / tensors)
            if self._placement.rank == 0:
                save_file(dict(common), Path(scratch) / _COMMON)
            (Path(scratch) / document).write_text(json.dumps(content), encoding="utf-8")
            self._folder.upload(Path(scratch), f"step-{step}")

    def _publish(self, step: int) -> None:
        if self._placement.rank:
            return
        old = self._steps()
        self._folder.write(f"step-{step}/{_COMPLETE}", b"")
        for number in old:
            if number != step:
                self._folder.remove(f"step-{number}")

    def _download(self, step: int) -> Saved:
        document, tensors = file_names(self._placement.rank)
        with tempfile.TemporaryDirectory() as scratch:
            for name in (document, tensors, _COMMON):
                if not self._folder.download(f"step-{step}/{name}", Path(scratch) / name):
                    raise FileNotFoundError(f"step-{step}/{name}")
            content = checked(
                json.loads((Path(scratch) / document).read_text(encoding="utf-8")), self._identity
            )
            # Read, not mapped: the files go away.
            common = {n: t.clone() for n, t in load_file(Path(scratch) / _COMMON).items()}
            own = {n: t.clone() for n, t in load_file(Path(scratch) / tensors).items()}
        return Saved(content["document"], common | own)

    def _steps(self) -> list[int]:
        """Those that are complete, ascending."""
        ends = (name for name in self._folder.names() if name.endswith(f"/{_COMPLETE}"))
        return sorted(int(name.split("/")[0].removeprefix("step-")) for name in ends)
