"""Duplicates and splits: which examples go where."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from study.basics.errors import DataError
from study.basics.text_format import counted
from study.config.load import DataConfig
from study.config.sources import Source
from study.training.data.encoding import Encoded
from study.training.data.tokenised import TokenisedSplit

_CUT_STREAM, _SAMPLE_STREAM = 1, 2


@dataclass
class Rows:
    """Examples of one source.

    Attributes:
        source: where they come from.
        encoded: the tokenised examples.
        labels: class ids, empty for causal-lm.
    """

    source: Source
    encoded: list[Encoded]
    labels: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.encoded)

    def target(self, index: int) -> int:
        """Where the loss begins; classification: the class id."""
        return self.labels[index] if self.labels else self.encoded[index].target_start

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """The examples at `indices`, in their order."""
        labels = [self.labels[i] for i in indices] if self.labels else []
        return Rows(self.source, [self.encoded[i] for i in indices], labels)

    def split(self, num_labels: int | None, sequence_length: int) -> TokenisedSplit:
        """The arrays that are stored."""
        lengths = [len(e.ids) for e in self.encoded]
        loss = None
        if any(e.loss is not None for e in self.encoded):
            loss = np.concatenate([e.has_loss for e in self.encoded])
        return TokenisedSplit(
            tokens=np.concatenate([e.ids for e in self.encoded]).astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            targets=np.array([self.target(i) for i in range(len(self))], dtype=np.int32),
            num_labels=num_labels,
            sequence_length=sequence_length,
            loss=loss,
        )


@dataclass(frozen=True)
class Removed:
    """Examples dropped, over all sources; empty ones by the reason."""

    empty: Counter[str]
    duplicates: int


def clean(rows: Mapping[str, Rows]) -> tuple[dict[str, Rows], Removed]:
    """Drop empty examples and exact duplicates (same tokens and target or label).

    A duplicate stays where it comes first in the order of `rows`.

    Raises:
        DataError: a source has nothing left.
    """
    seen: set[bytes] = set()
    cleaned: dict[str, Rows] = {}
    empty, duplicates = Counter[str](), 0
    for name, given in rows.items():
        filled = given.take([i for i, e in enumerate(given.encoded) if not e.empty])
        kept = []
        for i in range(len(filled)):
            digest = hashlib.blake2b(filled.encoded[i].ids.tobytes(), digest_size=16)
            digest.update(filled.target(i).to_bytes(8, "little"))
            if (loss := filled.encoded[i].loss) is not None:
                digest.update(loss.tobytes())
            if digest.digest() not in seen:
                seen.add(digest.digest())
                kept.append(i)
        if not kept:
            raise DataError(
                f"{given.source.key}: no example is left of {given.source.name}: of {len(given)} "
                f"rows {len(given) - len(filled)} have no target and {len(filled)} repeat "
                "examples of another split. Give data of its own."
            )
        cleaned[name] = filled.take(kept)
        empty.update(e.dropped for e in given.encoded if e.empty)
        duplicates += len(filled) - len(kept)
    return cleaned, Removed(empty, duplicates)


def cut_missing(rows: Mapping[str, Rows], data: DataConfig, seed: int) -> dict[str, Rows]:
    """Cut test and validation from train where no file gives them; train becomes ``pool``.

    The cut is drawn from `seed` alone; examples keep the order of their files.

    Raises:
        DataError: train is too small for the splits asked for.
    """
    train = rows["train"]
    order = np.random.default_rng([_CUT_STREAM, seed]).permutation(len(train))
    splits = {name: given for name, given in rows.items() if name != "train"}
    sizes = {
        name: _examples(getattr(data, f"{name}_size"), len(train))
        for name in ("test", "validation")
        if name not in rows
    }
    if sum(sizes.values()) >= len(train):
        wanted = " and ".join(f"{name} ({size})" for name, size in sizes.items())
        raise DataError(
            f"{train.source.key}: {counted(len(train), 'example')} of {train.source.name} "
            f"{'leaves' if len(train) == 1 else 'leave'} none for training once {wanted} are cut "
            "from them. Give more data, or lower "
            f"{' and '.join(f'data.{name}_size' for name in sizes)}."
        )
    start = 0
    for name, size in sizes.items():
        splits[name] = train.take(np.sort(order[start : start + size]))
        start += size
    splits["pool"] = train.take(np.sort(order[start:]))
    return splits


def _examples(size: int | float, available: int) -> int:
    return size if isinstance(size, int) else max(1, round(size * available))


def sample(rows: Rows, size: int, seed: int) -> Rows:
    """At most `size` examples, drawn from `seed`, in the order of their files."""
    if len(rows) <= size:
        return rows
    generator = np.random.default_rng([_SAMPLE_STREAM, seed])
    return rows.take(np.sort(generator.permutation(len(rows))[:size]))
