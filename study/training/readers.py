"""Rows of data files and hub datasets, and where each row came from.

Formats by suffix: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt; also with .gz after it.
Plain text: examples are separated by blank lines; in a file without a blank line every line is
an example; the column is called ``text``. CSV values stay text as written ("NA" is not a missing
value). `datasets` does the reading and is imported only here and only when something is read.
"""

from __future__ import annotations

import bisect
import codecs
import contextlib
import csv
import difflib
import glob
import gzip
import itertools
import json
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from study.errors import DataError
from study.training.sources import Source, data_format, suffix

if TYPE_CHECKING:
    from datasets import Dataset

TEXT_COLUMN = "text"
_LOOKED_AT = 100
"""Rows among which a CSV file's first line is looked for."""
_MAX_LINE = 64 * 2**20
"""Bytes of a line of a text file."""
_MAX_DEPTH = 60
"""Levels of nesting of a row: Arrow takes 63, and crashes beyond some ten thousand."""
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[{}\]]")


class Table:
    """One source's rows, read with `datasets`.

    Attributes:
        source: what was read.
        parts: one dataset per file (a hub dataset is one part).
    """

    def __init__(self, source: Source, parts: Sequence[Dataset]) -> None:
        self.source = source
        self.parts = tuple(parts)
        self._ends = list(itertools.accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def where(self, row: int) -> str:
        """For messages: file and 1-based row of the 0-based `row`."""
        part = bisect.bisect_right(self._ends, row)
        first = self._ends[part - 1] if part else 0
        return f"{self._part_name(part)}, row {row - first + 1}"

    def _part_name(self, part: int) -> str:
        return str(self.source.files[part]) if self.source.files else self.source.name

    def require(self, columns: Sequence[str], key: str) -> None:
        """Raise DataError unless every part has the columns that `key` needs."""
        for number, part in enumerate(self.parts):
            for column in columns:
                if column not in part.column_names:
                    name, files = self._part_name(number), self.source.files
                    if files and data_format(files[number]) == "csv":
                        missing_header = _missing_header(column, part)
                        if missing_header:
                            raise DataError(f"{key}: {name} {missing_header}")
                    raise DataError(_missing_column(key, column, name, part.column_names))

    def label_names(self, column: str) -> list[str] | None:
        """The names of a ClassLabel column, or None if the column is of another type."""
        return getattr(self.parts[0].features[column], "names", None)

    def batches(self, columns: Sequence[str], size: int = 1000) -> Iterator[tuple[int, dict]]:
        """Yield (first row, {column: values}) over all rows."""
        first = 0
        for part in self.parts:
            chosen = part.select_columns(list(columns))
            batches = chosen.iter(size)
            while batch := self._next(batches, first):
                yield first, batch
                first += len(next(iter(batch.values())))

    def _next(self, batches: Iterator[dict], first: int) -> dict | None:
        try:
            return next(batches, None)
        except UnicodeDecodeError as error:  # a Parquet file's texts are bytes until they are read
            raise DataError(
                f"{self.source.key}: {self.where(first)} or after: holds a text that is not UTF-8 "
                f"({error.reason}). Write the file anew."
            ) from None


def _missing_header(column: str, part: Dataset) -> str | None:
    """What to say of a CSV file whose first line is not, or may not be, its columns' names."""
    names, head = part.column_names, part[:_LOOKED_AT]
    if any(_is_value(name) or name in head[name] for name in names):
        return (
            f"has no column '{column}': its first line is an example, not the names of its "
            f"{len(names)} columns. Add a header line with their names, '{column}' among them."
        )
    if difflib.get_close_matches(column, names, n=1) or all(n.isidentifier() for n in names):
        return None
    return (
        f"has no column '{column}'. If its first line ({_shown(names)}) is an example, add a "
        f"header line with the columns' names; if it names them, rename one to '{column}'."
    )


def _is_value(name: str) -> bool:
    """Whether this is no column's name: a number, or a sentence."""
    with contextlib.suppress(ValueError):
        float(name)
        return True
    return len(name) > 64 or len(name.split()) > 5


def _shown(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _missing_column(key: str, column: str, name: str, available: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(column, available, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"{key}: {name} has no column '{column}'.{hint} Columns: {', '.join(available)}."


def read_table(source: Source, subset: str | None, cache: Path) -> Table:
    """Read a source. `cache` is a folder for Arrow files that the caller removes afterwards.

    Raises:
        DataError: unreadable, malformed, empty, or a hub dataset that cannot be reached.
    """
    with _quiet_datasets():
        if source.hub:
            parts = [_read_hub(source, subset)]
        else:
            parts = [_read_file(source.key, file, cache) for file in source.files]
    table = Table(source, parts)
    if not len(table):
        raise DataError(f"{source.key}: {source.name} has no rows. Give a file with examples.")
    return table


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars and no log lines: failures are raised, and told in one line."""
    import datasets

    level = datasets.utils.logging.get_verbosity()
    bars = not datasets.are_progress_bars_disabled()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _read_file(key: str, path: Path, cache: Path) -> Dataset:
    import datasets

    _refuse_unreadable(key, path)
    try:
        return datasets.load_dataset(
            data_format(path),
            data_files=[glob.escape(str(path.resolve()))],
            split="train",
            cache_dir=str(cache),
            **_reader_options(path),
        )
    except DataError as error:
        raise DataError(f"{key}: {error}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk is not the file's fault
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        # The readers raise errors of pyarrow, pandas and datasets, none of which names the line.
        raise DataError(f"{key}: {_diagnosis(path, cause)}") from error


def _refuse_unreadable(key: str, path: Path) -> None:
    """Look through a file before a library does, which may take long over what is no text, or
    crash."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            if data_format(path) == "parquet":
                fault = None if file.read(1) else "is empty. Give a file with examples."
            else:
                fault = _line_fault(file, data_format(path) == "json")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{key}: {path} cannot be read ({error}). Check the file.") from error
    if fault is not None:
        raise DataError(f"{key}: {path}{'' if fault.startswith(',') else ' '}{fault}")


def _line_fault(file: gzip.GzipFile | BufferedIOBase, json_lines: bool) -> str | None:
    """Why the lines of a text file are not given to its reader; None if they can be."""
    number, array = 0, False
    while line := file.readline(_MAX_LINE):
        number += 1
        if number == 1:
            array = json_lines and line.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
        if not line.isascii() and (len(line) < _MAX_LINE or not array):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"is not UTF-8 text (line {number}: {error.reason}). Save it as UTF-8."
        if b"\0" in line:
            return (
                f", line {number}: holds a null character, so the file is UTF-16, or no text at "
                "all. Save it as UTF-8."
            )
        if array:  # one value, which may be a single line
            continue
        if len(line) == _MAX_LINE:
            return f", line {number}: longer than {_MAX_LINE >> 20} MiB. Write a row per line."
        if json_lines and _depth(line) > _MAX_DEPTH:
            return (
                f", line {number}: more than {_MAX_DEPTH} levels of nesting. Write the columns "
                "that are read at the top of each row."
            )
    return None if number else "is empty. Give a file with examples."


def _depth(line: bytes) -> int:
    """Levels of nesting in a line of JSON."""
    if line.count(b"[") + line.count(b"{") <= _MAX_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_JSON_STRING.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _reader_options(path: Path) -> dict[str, Any]:
    import datasets

    if data_format(path) == "csv":
        separator = "\t" if suffix(path) == ".tsv" else ","
        with _open(path) as file:
            names = next(csv.reader(file, delimiter=separator), [])
        if not any(names):
            raise DataError(f"{path}: the first line is empty. Add a header line there.")
        if "" in names:
            raise DataError(
                f"{path}: column {names.index('') + 1} has no name in the first line. Give it one."
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(
                f"{path}: the first line has {twice!r} twice. Give each column a name of its own; "
                "if the line is an example, add a header line with the columns' names."
            )
        columns = datasets.Features({name: datasets.Value("string") for name in names})
        return {"sep": separator, "features": columns, "keep_default_na": False}
    if data_format(path) == "text":
        return {"sample_by": "paragraph" if _has_paragraphs(path) else "line"}
    return {}


def _has_paragraphs(path: Path) -> bool:
    """Whether a blank line stands between two others; one at the end means nothing."""
    started = blank = False
    with _open(path) as file:
        for line in file:
            if line == "\n":
                blank = started
            elif blank:
                return True
            else:
                started = True
    return False


def _diagnosis(path: Path, error: BaseException) -> str:
    """What is wrong with a file that its reader refused, with the line where that is known."""
    if "corresponds to no data" in str(error):
        return f"{path} has no rows. Give a file with examples."
    if isinstance(error, UnicodeDecodeError):
        return f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8."
    if suffix(path) in (".jsonl", ".ndjson"):
        found = _bad_json_line(path)
        if found:
            return found
    first_line = str(error).strip().split("\n")[0]
    return f"{path} cannot be read as {data_format(path)} ({first_line}). Check the file."


def _bad_json_line(path: Path) -> str | None:
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except RecursionError:
                    return f"{path}, line {number}: nested too deep. Write plain values."
                except json.JSONDecodeError as error:
                    return (
                        f"{path}, line {number}: not valid JSON ({error.msg}, column "
                        f"{error.colno}). Write one JSON object per line."
                    )
                except ValueError:  # more digits than Python reads
                    return f"{path}, line {number}: a number is too long. Write it as text."
                if not isinstance(row, dict):
                    return (
                        f"{path}, line {number}: {type(row).__name__} instead of an object. "
                        'Write one JSON object per line, e.g. {"text": "..."}.'
                    )
    except (UnicodeDecodeError, OSError) as error:
        return f"{path} is not UTF-8 text ({error}). Save it as UTF-8."
    return None


def _read_hub(source: Source, subset: str | None) -> Dataset:
    import datasets

    last: Exception | None = None
    for split in source.hub_splits:
        try:
            return datasets.load_dataset(source.hub, subset, split=split)
        except ConnectionError as error:
            raise DataError(
                f"{source.key}: {source.hub} is neither a local path nor reachable on the "
                "Hugging Face hub. Check the spelling, or give the path of a local file."
            ) from error
        except ValueError as error:
            last = error
            if not str(error).startswith("Unknown split"):
                break
        except Exception as error:
            # The hub client raises a dozen unrelated classes: gated, removed, broken metadata.
            last = error
            break
    first_line = str(last).strip().split("\n")[0]
    if subset is None and "onfig name is missing" in str(last):
        first_line = " ".join(str(last).split())[:200] + " Set data.subset."
    raise DataError(
        f"{source.key}: the hub dataset {source.hub} (data.subset: {subset}, split "
        f"{' or '.join(source.hub_splits)}) cannot be read: {first_line}"
    ) from last
