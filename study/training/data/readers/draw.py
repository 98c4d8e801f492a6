"""Some of very many rows, by chance."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
_BATCH = 10_000


@dataclass
class Draw:
    """At most `most` rows, each as likely as any other, in their order. Only these are ever held:
    every row gets a random key, and those with the lowest stay.

    Attributes:
        most: rows to keep.
        seed: decides which.
        left: rows that were read and not drawn, once all are read.
    """

    most: int
    seed: tuple[int, ...]
    left: int = field(default=0, init=False)
    _kept: list[tuple[float, int, Any]] = field(default_factory=list, init=False)
    _key: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._keys = _keys(self.seed)

    def wanted(self) -> bool:
        """Whether the next row stays for now; asked for each, before it is read."""
        self._key = -next(self._keys)  # the heap's first is what goes next
        if len(self._kept) < self.most:
            return True
        self.left += 1
        return self._key > self._kept[0][0]

    def of(self, rows: Iterable[T]) -> Iterator[T]:
        """Those drawn of the rows that were wanted."""
        for number, row in enumerate(rows):
            entry = (self._key, number, row)
            if len(self._kept) < self.most:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heapreplace(self._kept, entry)
        for _, _, row in sorted(self._kept, key=lambda entry: entry[1]):
            yield row


def _keys(seed: tuple[int, ...]) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    while True:
        yield from generator.random(_BATCH).tolist()
