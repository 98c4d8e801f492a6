"""Text of files, whatever they are packed in."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from study.training.data.readers.base import UnreadableError

LONGEST_LINE = 2**26
"""Characters. No example is as long; a file without line ends would fill the memory."""
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By the mark at a text's beginning; UTF-32's are looked for before UTF-16's, which begin alike."""


def open_bytes(path: Path) -> IO[bytes]:
    """A file's content, unpacked if its first bytes say that it is packed: gzip (also of several
    members), bzip2, xz, zstd.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    if magic == b"\xfd7zXZ\x00":
        return lzma.open(path)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(str(path), "zstd"))
    return path.open("rb")


def open_text(path: Path, encoding: str | None) -> TextIO:
    """A file's text, line ends as they are.

    Args:
        encoding: None takes UTF-8, or what a byte order mark says.
    """
    with open_bytes(path) as file:
        start = file.read(4)
    found = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
    return io.TextIOWrapper(open_bytes(path), encoding=encoding or found, newline="")


def lines(path: Path, encoding: str | None) -> Iterator[str]:
    """Lines with their ends: a line feed, a carriage return, or both. No other character ends one.

    Raises:
        UnreadableError: bytes that are no text, a damaged archive, or an endless line.
    """
    with _opened(path, encoding) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if "\0" in line:
                raise UnreadableError(_holds_null(f"{path}, line {number}"))
            if len(line) == LONGEST_LINE:
                raise UnreadableError(
                    f"{path}, line {number}: longer than {LONGEST_LINE:,} characters. Write one "
                    "example per line."
                )
            yield line


def whole(path: Path, encoding: str | None) -> str:
    """A file's text at once.

    Raises:
        UnreadableError: as `lines`, but lines may be of any length.
    """
    with _opened(path, encoding) as file:
        parts: list[str] = []
        while part := file.read(LONGEST_LINE):
            if "\0" in part:
                line = 1 + "".join([*parts, part.partition("\0")[0]]).count("\n")
                raise UnreadableError(_holds_null(f"{path}, line {line}"))
            parts.append(part)
        return "".join(parts)


def first_character(path: Path, encoding: str | None) -> str:
    """The first that is no white space; nothing in a file without one.

    Raises:
        UnreadableError: as `lines`.
    """
    with _opened(path, encoding) as file:
        while part := file.read(4096):
            if part := part.lstrip():
                return part[0]
    return ""


@contextmanager
def _opened(path: Path, encoding: str | None) -> Iterator[TextIO]:
    try:
        with open_text(path, encoding) as file:
            yield file
    except UnicodeError as error:
        raise UnreadableError(_no_text(path, encoding, error)) from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableError(f"{path} is a damaged archive ({error}). Make it again.") from None


def _holds_null(place: str) -> str:
    return (
        f"{place}: holds a null character, so the file is UTF-16, or no text at all. Save it as "
        "UTF-8."
    )


def _no_text(path: Path, encoding: str | None, error: UnicodeError) -> str:
    if encoding:
        return f"{path} is not {encoding} text ({error}). Correct data.encoding."
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                return (
                    f"{path}, line {number}: byte 0x{line[found.start]:02x} is not UTF-8 text. "
                    "Save the file as UTF-8, or name its encoding in data.encoding, such as cp1252."
                )
    return f"{path} is not UTF-8 text ({error}). Save it as UTF-8."
