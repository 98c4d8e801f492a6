"""What every reader of data files gives, and what the values of a row are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from study.basics.errors import DataError

TEXT_COLUMN = "text"
"""The column of plain text."""


class Part(ABC):
    """The rows of one file, or of one dataset of the hub.

    Values are what JSON has: texts, integers, floats, booleans, None, and lists and dictionaries
    of such. Dates and times are text. A float that a file writes out is a `WrittenFloat`.

    Attributes:
        name: for messages.
        columns: as far as the first rows tell, in the order of the file.
    """

    name: str
    columns: Sequence[str]

    def has(self, column: str) -> bool:
        """Whether any row has the column."""
        return column in self.columns

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The values of these columns alone, row by row; None where a row lacks one.

        Raises:
            DataError: the file is malformed; begins with the file and the line.
        """

    def label_names(self, column: str) -> list[str] | None:
        """The names of a `datasets.ClassLabel` column, or None if the column is of another type."""
        return None


class WrittenFloat(float):
    """A number that remembers how it is written: ``1.50`` is no other number than ``1.5``, but
    another text."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


class UnreadableError(DataError):
    """A file that is not what its name says; whoever knows its key puts that in front."""
