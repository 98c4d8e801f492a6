"""Comma-separated values, and tab-separated ones."""

from __future__ import annotations

import contextlib
import csv
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.training.data.readers.base import Part, UnreadableError
from study.training.data.readers.opened import LONGEST_LINE, lines

_SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r"sep=(.)\r?\n?")
_SAMPLE = 50
"""Records that tell the separator."""
_QUOTED: Mapping[str, Any] = {"quotechar": '"', "doublequote": True}
_ESCAPED: Mapping[str, Any] = {**_QUOTED, "escapechar": "\\"}
_PLAIN: Mapping[str, Any] = {"quoting": csv.QUOTE_NONE, "quotechar": None}
csv.field_size_limit(LONGEST_LINE)


class CsvRows(Part):
    """Records below a header line; all values are text as it is written ("NA" is no missing one).

    What the file does not say is found out from it: the separator of a ``.csv``, whether
    quotation marks inside quoted fields are doubled or follow a backslash (as MySQL and Spark
    write them), and whether a ``.tsv`` quotes at all.
    """

    def __init__(self, path: Path, encoding: str | None, is_tsv: bool) -> None:
        self.name = str(path)
        self._path, self._encoding = path, encoding
        self._dialect = {**_PLAIN, "delimiter": "\t"} if is_tsv else {**_QUOTED, "delimiter": ","}
        if is_tsv:
            if self._looks_quoted():
                self._dialect = {**_QUOTED, "delimiter": "\t"}
        else:
            self._dialect["delimiter"] = self._separator()
            if self._looks_escaped():
                self._dialect |= _ESCAPED
        self.columns = next((record for _, record in self._records()), [])
        if len(self.columns) > 1 and all(name[:1] == " " for name in self.columns[1:]):
            self._dialect["skipinitialspace"] = True
            self.columns = next(record for _, record in self._records())

    def missing_header(self, column: str) -> str | None:
        """What to say of a file that lacks a column because its first line is, or may be, an
        example; None if it plainly names the columns."""
        names = self.columns
        other = next(
            (s for s in _SEPARATORS if s in "".join(names) and column in names[0].split(s)), ""
        )
        if len(names) == 1 and other:
            return (
                f"its first line is separated by {other!r}, not by "
                f"{self._dialect['delimiter']!r}. Rename the file to .csv."
            )
        head = [r for _, r in itertools.islice(self._records(), 1, _SAMPLE) if len(r) == len(names)]
        repeated = any(
            name in column for name, column in zip(names, zip(*head, strict=True), strict=False)
        )
        if repeated or any(map(_is_value, names)):
            return (
                f"its first line is an example, not the names of its {len(names)} columns. Add a "
                f"header line with their names, '{column}' among them."
            )
        if difflib.get_close_matches(column, names, n=1) or all(n.isidentifier() for n in names):
            return None
        shown = ", ".join(names)
        return (
            f"if its first line ({shown[:80]}{'...' if len(shown) > 80 else ''}) is an example, "
            "add a header line with the columns' names; if it names them, rename one to "
            f"'{column}'."
        )

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
        places = [self._place(column) for column in columns]
        width = len(self.columns)
        for line, record in itertools.islice(self._records(), 1, None):
            if len(record) != width:
                raise UnreadableError(
                    f"{self.name}, line {line}: {len(record)} fields, but the header line names "
                    f"{width}. Put a field that holds {self._dialect['delimiter']!r} between "
                    "quotation marks, or correct the line."
                )
            yield tuple(record[place] for place in places)

    def _place(self, column: str) -> int:
        if self.columns.count(column) > 1:
            raise UnreadableError(
                f"{self.name}: its header line names {column!r} more than once. Rename one."
            )
        return self.columns.index(column)

    def _records(self, dialect: Mapping[str, Any] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Records that are not blank, each with the line it begins at."""
        reader = csv.reader(self._lines(), strict=True, **(dialect or self._dialect))
        line = 1
        while True:
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise UnreadableError(self._malformed(line, reader.line_num, error)) from None
            if record is None:
                return
            if record:
                yield line, record
            line = reader.line_num + 1

    def _malformed(self, first: int, last: int, error: csv.Error) -> str:
        if "unexpected end" in str(error):
            return (
                f"{self.name}, line {first}: a quotation mark opens a field here that nothing "
                'closes. Remove it, or write "" for a quotation mark inside a quoted field.'
            )
        if "expected after" in str(error):
            return (
                f"{self.name}, line {last}: text follows the closing quotation mark of a field "
                f'(which begins in line {first} or later). Write "" for a quotation mark inside a '
                "quoted field."
            )
        return f"{self.name}, line {last}: cannot be read as CSV ({error}). Correct it."

    def _lines(self) -> Iterator[str]:
        """Without the line by which Excel is told the separator, which is blank in its place."""
        for number, line in enumerate(lines(self._path, self._encoding)):
            yield "\n" if number == 0 and _SEP_LINE.fullmatch(line) else line

    def _separator(self) -> str:
        """The one that gives every record as many fields, and more than one."""
        first = next(lines(self._path, self._encoding), "")
        if named := _SEP_LINE.fullmatch(first):
            return named[1]
        widths = {separator: self._widths(separator) for separator in _SEPARATORS}
        for separator, found in widths.items():
            if found[:1] > [1] and len(set(found)) == 1:
                return separator
        return max(_SEPARATORS, key=lambda separator: widths[separator][:1])

    def _widths(self, separator: str) -> list[int]:
        """Fields of the first records."""
        reader = csv.reader(self._lines(), delimiter=separator)
        return [len(record) for record in itertools.islice(reader, _SAMPLE) if record]

    def _looks_escaped(self) -> bool:
        """Whether the records are whole only if a backslash escapes."""
        if not any('\\"' in line for line in self._lines()):
            return False
        return not self._is_whole(self._dialect) and self._is_whole({**self._dialect, **_ESCAPED})

    def _is_whole(self, dialect: Mapping[str, Any]) -> bool:
        try:
            return len({len(record) for _, record in self._records(dialect)}) == 1
        except UnreadableError:
            return False

    def _looks_quoted(self) -> bool:
        """Whether quotation marks around fields are no part of them: they stand around all fields,
        or only where they are needed, and those inside are doubled. That they hold line ends is no
        sign: so do two of prose, one in each of two rows."""
        starts = (line.startswith('"') or '\t"' in line for line in self._lines())
        dialect = {**_QUOTED, "delimiter": "\t"}
        if not any(starts) or not self._is_whole(dialect):
            return False
        raw: list[str] = []
        reader = csv.reader(_kept(self._lines(), raw), **dialect)
        everywhere, where_needed, proven = True, True, False
        for record in reader:
            quoted = _quoted(record, "".join(raw))
            raw.clear()
            everywhere &= len(quoted) == len(record)
            where_needed &= all(set('\t\r\n",') & set(field) for field in quoted)
            proven |= any('"' in field for field in quoted)
        return everywhere or (where_needed and proven)


def _is_value(name: str) -> bool:
    """Whether this is no column's name: a number, or a sentence."""
    with contextlib.suppress(ValueError):
        float(name)
        return True
    return len(name) > 64 or len(name.split()) > 5


def _kept(given: Iterable[str], kept: list[str]) -> Iterator[str]:
    for line in given:
        kept.append(line)
        yield line


def _quoted(record: Sequence[str], raw: str) -> list[str]:
    """The fields that stand between quotation marks in the lines of their record."""
    found, place = [], 0
    for field in record:
        written = '"' + field.replace('"', '""') + '"'
        if raw.startswith(written, place):
            found.append(field)
            place += len(written) - len(field)
        place += len(field) + 1
    return found
