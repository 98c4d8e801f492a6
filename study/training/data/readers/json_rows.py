"""JSON Lines, and JSON of one array."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from study.training.data.readers.base import Part, UnreadableError, WrittenFloat
from study.training.data.readers.opened import first_character, lines, whole

_FIRST_ROWS = 1000
_DECODER = json.JSONDecoder(parse_float=WrittenFloat, parse_constant=WrittenFloat)
_WHITE = re.compile(r"[ \t\r\n]*")
Row = dict[str, Any]


class JsonRows(Part):
    """Rows as JSON objects: one a line, or in one array, alone in the file or under the only key
    that holds one; or an object with a list for each column."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.name = str(path)
        self._path, self._encoding = path, encoding
        self._is_lines = first_character(path, encoding) != "[" and path.suffix != ".json"

    @cached_property
    def columns(self) -> Sequence[str]:  # type: ignore[override]
        first = itertools.islice(self._objects(), _FIRST_ROWS)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(first)))

    def has(self, column: str) -> bool:
        return super().has(column) or any(column in row for row in self._objects())

    def rows(
        self, columns: Sequence[str], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[Any, ...]]:
        """
        Args:
            wanted: asked once for each row, before it is parsed, whether to give it.
        """
        for row in self._objects(columns, wanted):
            yield tuple(map(row.get, columns))

    def _objects(
        self, columns: Sequence[str] = (), wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[Row]:
        """Rows, in which the numbers of these columns keep their text."""
        if self._is_lines:
            return self._of_lines(columns, wanted)
        return (row for row in self._of_document() if wanted())

    def _of_lines(self, columns: Sequence[str], wanted: Callable[[], bool]) -> Iterator[Row]:
        rule = "Write one JSON object per line"
        for number, line in enumerate(lines(self._path, self._encoding), start=1):
            if line.isspace() or not wanted():
                continue
            row = _quickly(line)
            if row is None or any(_has_float(row.get(column)) for column in columns):
                place = f"{self._path}, line {number}"
                with _explained(place, f"{rule}."):
                    row = self._checked(_DECODER.decode(line), place, rule)
            yield row

    def _of_document(self) -> Iterator[Row]:
        # Whole: where an object ends is known only once it is parsed.
        text = whole(self._path, self._encoding)
        values = self._values(text)
        first = list(itertools.islice(values, 2))
        if len(first) == 1 and isinstance(first[0], dict):
            first = self._rows_in(first[0])
        for number, value in enumerate(itertools.chain(first, values), start=1):
            yield self._checked(value, f"{self._path}, row {number}", "Write an array of objects")

    def _rows_in(self, document: Row) -> list[Any]:
        """The rows of a file that is one object: a list of them under one of its keys, a list for
        each column, or a single row."""
        below = [value for value in document.values() if _is_rows(value)]
        if len(below) == 1:
            return list(below[0])
        columns = list(document.values())
        lengths = {len(column) if isinstance(column, list) else None for column in columns}
        if not below and len(lengths) == 1 and None not in lengths:
            return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
        if all(isinstance(value, list | dict) for value in columns):
            shown = ", ".join(itertools.islice(document, 5))
            raise UnreadableError(
                f"{self._path}: is one object (of {shown}), not rows. Write an array of objects, "
                '[{"text": "..."}, ...], one file for each split; pandas does with '
                'to_json(path, orient="records").'
            )
        return [document]

    def _values(self, text: str) -> Iterator[Any]:
        """The elements of an array, or values one after the other."""
        place, is_array = _skip(text, 0), False
        if text.startswith("[", place):
            place, is_array = _skip(text, place + 1), True
        rule = "Write one array of objects, [{...}, {...}]."
        while place < len(text) and not (is_array and text[place] == "]"):
            with _explained(self.name, rule, is_line=False):
                value, place = _DECODER.raw_decode(text, place)
                place = _skip(text, place)
                if is_array and not text.startswith((",", "]"), place):
                    raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
            yield value
            place = _skip(text, place + 1) if text.startswith(",", place) and is_array else place
        if is_array and (place >= len(text) or _skip(text, place + 1) < len(text)):
            raise UnreadableError(
                f"{self._path}: its array does not end where the file does. {rule}"
            )

    @staticmethod
    def _checked(row: Any, place: str, rule: str) -> Row:
        if isinstance(row, dict):
            return row
        kind = "null" if row is None else type(row).__name__
        raise UnreadableError(
            f'{place}: {kind} instead of an object. {rule}, e.g. {{"text": "..."}}.'
        )


def _quickly(line: str) -> Row | None:
    """An object by a parser three times as fast, which forgets how numbers are written and takes
    long integers for floats; None where it refuses or it is no object."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    return isinstance(value, float) or (isinstance(value, list) and any(map(_has_float, value)))


def _skip(text: str, place: int) -> int:
    """Where the next character is that is no white space."""
    found = _WHITE.match(text, place)
    return found.end() if found else place


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


@contextmanager
def _explained(place: str, rule: str, is_line: bool = True) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        line = "" if is_line else f", line {error.lineno}"
        raise UnreadableError(
            f"{place}{line}: not valid JSON ({error.msg}, column {error.colno}). {rule}"
        ) from None
    except RecursionError:
        raise UnreadableError(f"{place}: nested too deeply to be data. {rule}") from None
    except ValueError:  # Python refuses to take them in
        raise UnreadableError(f"{place}: an integer of thousands of digits. Quote it.") from None
