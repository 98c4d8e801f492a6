"""Plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from study.training.data.readers.base import TEXT_COLUMN, Part
from study.training.data.readers.opened import lines


class TextRows(Part):
    """Examples are separated by blank lines; in a file without a blank line between two others
    every line is an example."""

    columns = (TEXT_COLUMN,)

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.name = str(path)
        self._path, self._encoding = path, encoding
        self._is_lines = not self._has_paragraphs()

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
        paragraph: list[str] = []
        for line in self._lines():
            if line and not self._is_lines:
                paragraph.append(line)
            elif line:
                yield (line,)
            elif paragraph:
                yield ("\n".join(paragraph),)
                paragraph = []
        if paragraph:
            yield ("\n".join(paragraph),)

    def _lines(self) -> Iterator[str]:
        return (line.rstrip("\r\n") for line in lines(self._path, self._encoding))

    def _has_paragraphs(self) -> bool:
        started = blank = False
        for line in self._lines():
            if not line:
                blank = started
            elif blank:
                return True
            else:
                started = True
        return False
