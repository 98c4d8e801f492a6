"""Rows of data files and hub datasets, as their authors wrote them.

Formats by suffix: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .txt; text also packed as
.gz, .bz2, .xz or .zst. One reader per format behind `base.Part`; only the columns that are asked
for are looked at, so that no other one can be malformed.
"""

from __future__ import annotations

import contextlib
import difflib
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.basics.errors import DataError
from study.config.data_formats import data_format, is_lfs_pointer, suffix
from study.config.sources import Source
from study.training.data.readers.arrow_rows import ArrowRows, ParquetRows
from study.training.data.readers.base import TEXT_COLUMN, Part, UnreadableError, WrittenFloat
from study.training.data.readers.csv_rows import CsvRows
from study.training.data.readers.draw import Draw
from study.training.data.readers.hub import read_hub
from study.training.data.readers.json_rows import JsonRows
from study.training.data.readers.opened import open_bytes
from study.training.data.readers.text_rows import TextRows

__all__ = ["TEXT_COLUMN", "Draw", "Table", "WrittenFloat", "read_table"]


_MAGIC = {
    b"PK\x03\x04": ("a ZIP archive, or a workbook. Unpack it, or save its sheet as CSV", ""),
    b"PAR1": ("a Parquet file by another name. Call it .parquet", "parquet"),
}
"""What files begin with that are no text, whatever they are called, and their format."""


@dataclass(frozen=True)
class Table:
    """One source's rows.

    Attributes:
        source: what is read.
        parts: one per file (a hub dataset is one).
        draw: which of their rows are given; None: all.
    """

    source: Source
    parts: tuple[Part, ...]
    draw: Draw | None = None

    def require(self, columns: Sequence[str], key: str) -> None:
        """Raise DataError unless every part has the columns that `key` needs."""
        with _keyed(self.source):
            for part in self.parts:
                for column in columns:
                    if not part.has(column):
                        raise DataError(f"{key}: {_missing_column(column, part)}")

    def may_have(self, column: str) -> bool:
        """Whether a row may have the column; those of JSON may have any."""
        return any(_may_have(part, column) for part in self.parts)

    def label_names(self, column: str) -> list[str] | None:
        """The names of a ClassLabel column, or None if the column is of another type."""
        return self.parts[0].label_names(column)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict]]:
        """Yield (file and 1-based row for messages, {column: value}) over the rows.

        Raises:
            DataError: a file is malformed, or none has rows.
        """
        if self.draw is None:
            return self._rows(columns, lambda: True)
        return self.draw.of(self._rows(columns, self.draw.wanted))

    def _rows(
        self, columns: Sequence[str], wanted: Callable[[], bool]
    ) -> Iterator[tuple[str, dict]]:
        number = 0

        def next_wanted() -> bool:
            nonlocal number
            number += 1
            return wanted()

        with _keyed(self.source):
            for part in self.parts:
                there = [column for column in columns if _may_have(part, column)]
                none = dict.fromkeys(set(columns) - set(there))
                number = 0
                for values in _wanted_rows(part, there, next_wanted):
                    row = dict(zip(there, values, strict=True))
                    yield f"{part.name}, row {number}", row | none if none else row


def _wanted_rows(
    part: Part, columns: Sequence[str], wanted: Callable[[], bool]
) -> Iterator[tuple[Any, ...]]:
    if isinstance(part, JsonRows):  # parsing is what takes time there
        return part.rows(columns, wanted)
    return (values for values in part.rows(columns) if wanted())


def _may_have(part: Part, column: str) -> bool:
    return isinstance(part, JsonRows) or part.has(column)


def read_table(source: Source, subset: str | None, encoding: str | None = None) -> Table:
    """Open a source.

    Args:
        subset: configuration of a hub dataset.
        encoding: of text files; None takes UTF-8, or what a byte order mark says.

    Raises:
        DataError: unreadable, malformed, empty, or a hub dataset that cannot be reached.
    """
    with _keyed(source):
        if source.hub:
            parts: tuple[Part, ...] = (read_hub(source, subset),)
        else:
            parts = tuple(_open(file, encoding) for file in source.files)
        if all(next(part.rows(part.columns[:1]), None) is None for part in parts):
            raise UnreadableError(f"{source.name} has no rows. Give a file with examples.")
    return Table(source, parts)


def _open(path: Path, encoding: str | None) -> Part:
    with open_bytes(path) as file:
        begin = file.read(4)
    if not begin:
        raise UnreadableError(f"{path} is empty. Give a file with examples.")
    if is_lfs_pointer(path):
        raise UnreadableError(f"{path} is a pointer of Git LFS, not the data. Run `git lfs pull`.")
    kind = data_format(path)
    for magic, (what, right) in _MAGIC.items():
        if begin == magic and kind != right:
            raise UnreadableError(f"{path} is {what}.")
    if kind == "parquet":
        return ParquetRows(path)
    if kind == "arrow":
        return ArrowRows(path)
    if kind == "csv":
        return CsvRows(path, encoding, is_tsv=suffix(path) == ".tsv")
    if kind == "text":
        return TextRows(path, encoding)
    return JsonRows(path, encoding)


@contextlib.contextmanager
def _keyed(source: Source) -> Iterator[None]:
    """Put the key before what is wrong with a file."""
    try:
        yield
    except UnreadableError as error:
        raise DataError(f"{source.key}: {error}") from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{source.key}: {source.name} is a damaged archive ({error}).") from error
    except OSError as error:
        # Also what gzip and its like raise; a full disk is told by who writes.
        raise DataError(f"{source.key}: {source.name} cannot be read ({error}).") from error


def _missing_column(column: str, part: Part) -> str:
    lacks = f"{part.name} has no column '{column}'"
    header = part.missing_header(column) if isinstance(part, CsvRows) else None
    if header is not None:
        return f"{lacks}: {header}"
    nearest = difflib.get_close_matches(column, part.columns, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    shown = ", ".join(part.columns)
    return f"{lacks}.{hint} Columns: {shown[:500]}{'...' if len(shown) > 500 else ''}."
