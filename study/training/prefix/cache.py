"""Frozen-prefix activation cache of one trial.

While a phase trains upper blocks, the blocks below that nobody has trained yet give the same
hidden states for an example as they did in the base model. They are computed once, kept on the
node's disk, and read by later epochs and phases, by evaluations, and by every other trial of the
study there. A missing one is computed for its batch alone and kept on the way.

There is no separate pass that fills it. Batches are as large as a pass would cut them, and a miss
hands its rows on where a pass reads them back: a whole cold trial of 8 groups took 3 % longer on
two CPU cores with a pass over each phase's examples at its start, and 6 % with one over all of
them, which runs blocks for examples that only lower phases need. A pass paid (6 %) only where
the user cut forward passes to some thirty tokens.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.protocol.records import PrefixCacheUse
from study.training.data.batches import collate
from study.training.data.tokenised import StudyData, TokenisedSplit
from study.training.engine.engine import PhaseEngine
from study.training.model.bypass import PREFIX_HIDDEN, BlockBypass, few_logits
from study.training.placement import Placement
from study.training.prefix.rows import padded_hidden, rows_of
from study.training.prefix.store import HiddenRows, PrefixStore

log = logging.getLogger(__name__)

SPLITS = ("pool", "validation")
"""What phases are trained and evaluated on; test and retention are scored once, at the end."""

_STATE = "prefix_cache"
"""Begins the names of what a checkpoint holds of a cache."""

Boundary = int
"""Number of lowest blocks that are left out."""


def rows_name(split: str, boundary: Boundary) -> str:
    """What a split's hidden states at a boundary are called in the store."""
    return f"{split}.{boundary}"


@dataclass
class _Counts:
    """Token-blocks: tokens times the blocks that were left out, or run, for them."""

    hits: int = 0
    misses: int = 0
    hit_token_blocks: int = 0
    fill_token_blocks: int = 0
    fill_seconds: float = 0.0
    read_seconds: float = 0.0
    bytes_written: int = 0


class _Need(IntEnum):
    """What a batch takes; the highest need of any rank is that of all that keep step."""

    READ = 0
    FILL = 1
    RECOMPUTE = 2


class PrefixCache:
    """Batches with hidden states, for phases whose boundary is above 0.

    Args:
        bypass: of the trial's model.
        store: of this node.
        key: of everything the hidden states depend on.
        boundaries: of each phase; those of the phases in which nothing is kept are 0.
        in_step: every rank must make the same forward passes (ZeRO-3 gathers in each).

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        bypass: BlockBypass,
        store: PrefixStore,
        key: str,
        boundaries: Sequence[Boundary],
        data: StudyData,
        placement: Placement,
        in_step: bool,
    ) -> None:
        self.boundary: Boundary = 0
        self._bypass, self.store, self._key = bypass, store, key
        self._boundaries = tuple(boundaries)
        self._data, self._placement = data, placement
        self._in_step = in_step
        self._evaluate: Callable[[Mapping[str, Tensor]], Tensor] | None = None
        self._rows: dict[tuple[str, Boundary], HiddenRows] = {}
        self._first = {n: np.zeros(len(getattr(data, n)), dtype=np.int16) for n in SPLITS}
        self.counts = _Counts()
        self._full = False
        for boundary in {b for b in boundaries if b}:
            for name in SPLITS:
                offsets = getattr(data, name).offsets
                rows = store.open(key, rows_name(name, boundary), offsets, bypass.token_bytes)
                self._rows[name, boundary] = rows

    def enter_phase(self, phase: int, engine: PhaseEngine) -> bool:
        """Serve the phase's boundary from now on, to this engine; False if it has none."""
        self.boundary = self._boundaries[phase]
        if self.boundary:
            for name in SPLITS:
                self._rows[name, self.boundary].touch()
            engine.bypass = (self.boundary, self._bypass)
            self._evaluate = partial(engine.evaluate, **few_logits(engine.model))
        return self.boundary > 0

    def leave(self) -> None:
        """Serve plain batches: between phases, or when weights of another phase are put back."""
        self.boundary, self._evaluate = 0, None

    def batch(self, name: str, ids: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """`collate` of these examples of a split, with their hidden states where a boundary is
        served. Where ranks must keep in step, all of them must call it equally often.

        Args:
            name: of the split in `StudyData`.
        """
        split: TokenisedSplit = getattr(self._data, name)
        ids = np.asarray(ids)
        tensors = collate(split, ids, self._data.pad_token_id)
        if not self.boundary:
            return tensors
        rows = self._rows[name, self.boundary]
        started = time.perf_counter()
        found = {int(i): row for i in ids if (row := rows.read(int(i))) is not None}
        self.counts.read_seconds += time.perf_counter() - started
        missing = np.asarray([i for i in ids if int(i) not in found], dtype=np.int64)
        need = self._agreed(len(missing))
        if need is _Need.RECOMPUTE:
            self._note_first_use(name, ids, ())
            self.counts.misses += len(ids)
            return tensors
        self._count(name, ids, found, missing)
        if need is _Need.FILL:
            # What was read stays: computed in another batch it would differ by rounding.
            found = self._fill(name, missing if len(missing) else ids[:1]) | found
        started = time.perf_counter()
        tensors[PREFIX_HIDDEN] = padded_hidden(
            [found[int(i)] for i in ids],
            tensors["input_ids"].shape[1],
            self._bypass.token_bytes,
            self._bypass.dtype,
        )
        self.counts.read_seconds += time.perf_counter() - started
        return tensors

    def _agreed(self, missing: int) -> _Need:
        """What to do about a batch with so many missing rows, on all ranks alike where they keep
        step. Without room, computing them apart from the model's own pass only costs."""
        need = _Need.READ
        if missing:
            need = _Need.RECOMPUTE if self._full else _Need.FILL
        return _Need(int(self._placement.max(need))) if self._in_step else need

    def _count(
        self, name: str, ids: np.ndarray, found: Mapping[int, Any], missing: np.ndarray
    ) -> None:
        split: TokenisedSplit = getattr(self._data, name)
        self._note_first_use(name, ids, found)
        self.counts.hits += len(found)
        self.counts.misses += len(missing)
        self.counts.hit_token_blocks += self.boundary * int(
            sum(split.lengths[i] for i in found)  # the same example may stand in a batch twice
        )

    def _fill(self, name: str, ids: np.ndarray) -> dict[int, np.ndarray]:
        """Compute the hidden states of examples, and keep them and those at lower boundaries."""
        assert self._evaluate is not None  # a boundary above 0 is only served inside a phase
        started = time.perf_counter()
        split: TokenisedSplit = getattr(self._data, name)
        wanted = [self.boundary]
        if not self._full:
            wanted = sorted({b for b in self._boundaries if 0 < b <= self.boundary})
        tensors = collate(split, ids, self._data.pad_token_id)
        with self._bypass.below_block(self.boundary, wanted) as hidden:
            self._evaluate(tensors)
        found: dict[int, np.ndarray] = {}
        for boundary in wanted:
            rows = rows_of(hidden[boundary], split.lengths[ids])
            found = {int(i): row for i, row in zip(ids, rows, strict=True)}
            self._keep(name, boundary, found)
        counts = self.counts
        counts.fill_seconds += time.perf_counter() - started
        counts.fill_token_blocks += self.boundary * int(split.lengths[ids].sum())
        return found

    def _keep(self, name: str, boundary: Boundary, rows: Mapping[int, np.ndarray]) -> None:
        if self._full:
            return
        try:
            if self.store.room() < sum(row.nbytes for row in rows.values()):
                raise OSError(f"{self.store.root} has no room left")
            kept = self._rows[name, boundary]
            for example, row in rows.items():
                self.counts.bytes_written += kept.write(example, np.ascontiguousarray(row))
        except OSError as error:
            # The trial needs none of it: it goes on computing what it does not find.
            log.warning("no more hidden states are kept in this trial: %s", error)
            self._full = True

    def _note_first_use(self, name: str, ids: np.ndarray, found: Collection[int]) -> None:
        """Remember the boundary at which an example was first needed, negative if its row was
        there: a cold run would have computed it here."""
        first = self._first[name]
        new = ids[first[ids] == 0]
        there = np.asarray([int(i) in found for i in new], dtype=bool)
        first[new] = np.where(there, -self.boundary, self.boundary)

    def state(self) -> dict[str, Tensor]:
        """This rank's part of what `use` tells, for `restore` in another process."""
        counts = torch.tensor(dataclasses.astuple(self.counts), dtype=torch.float64)
        first = {f"{_STATE}/{n}": torch.from_numpy(a) for n, a in self._first.items()}
        return {f"{_STATE}/counts": counts, **first}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on counting from `state`, if it is among these."""
        found = tensors.get(f"{_STATE}/counts")
        if found is None:  # of a run without a cache
            return
        old = dataclasses.astuple(self.counts)
        values = zip(old, found.tolist(), strict=True)
        self.counts = _Counts(*(type(zero)(value) for zero, value in values))
        self._first = {name: tensors[f"{_STATE}/{name}"].numpy().copy() for name in SPLITS}

    def use(self) -> PrefixCacheUse:
        """What the cache has done so far; every rank must call it, all get the same."""
        counts, total = self.counts, self._placement.sum
        filled = total(counts.fill_seconds), total(counts.fill_token_blocks)
        rate = self.store.fill_rate(self._key, *filled)
        saved = rate * total(counts.hit_token_blocks) - total(counts.read_seconds)
        return PrefixCacheUse(
            status="on",
            hits=int(total(counts.hits)),
            misses=int(total(counts.misses)),
            bytes_written=int(total(counts.bytes_written)),
            bytes_on_node=self.store.used_bytes(),
            fill_seconds=filled[0],
            seconds_saved=max(0.0, saved),
            cold_seconds=rate * self._cold_token_blocks(),
        )

    def _cold_token_blocks(self) -> int:
        blocks = 0
        for name in SPLITS:
            split: TokenisedSplit = getattr(self._data, name)
            first = torch.from_numpy(self._first[name].astype(np.int64))
            # Where any rank was the first to compute a row, others that found it there did not
            # find an old one.
            old = torch.clamp(-first, min=0)
            new = torch.clamp(first, min=0)
            self._placement.all_reduce(old, torch.distributed.ReduceOp.MAX)
            self._placement.all_reduce(new, torch.distributed.ReduceOp.MAX)
            blocks += int((split.lengths * np.where(new.numpy() > 0, 0, old.numpy())).sum())
        return blocks

    def close(self) -> None:
        """Let go of the files; they stay for other trials."""
        self.leave()
        while self._rows:
            self._rows.popitem()[1].close()
