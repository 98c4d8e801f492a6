"""Rows of data files and hub datasets, and where each row came from.

Formats by suffix: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt; also with .gz after it.
Plain text: examples are separated by blank lines; in a file without a blank line every line is
an example; the column is called ``text``. CSV values stay text as written ("NA" is not a missing
value). `datasets` does the reading and is imported only here and only when something is read.
"""

from __future__ import annotations

import bisect
import contextlib
import csv
import difflib
import glob
import gzip
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from study.errors import DataError
from study.training.sources import Source, data_format, suffix

if TYPE_CHECKING:
    from datasets import Dataset

TEXT_COLUMN = "text"


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
                    name = self._part_name(number)
                    raise DataError(_missing_column(key, column, name, part.column_names))

    def may_have(self, column: str) -> bool:
        """Whether `batches` can be asked for the column."""
        return all(column in part.column_names for part in self.parts)

    def label_names(self, column: str) -> list[str] | None:
        """The names of a ClassLabel column, or None if the column is of another type."""
        return getattr(self.parts[0].features[column], "names", None)

    def batches(self, columns: Sequence[str], size: int = 1000) -> Iterator[tuple[int, dict]]:
        """Yield (first row, {column: values}) over all rows."""
        first = 0
        for part in self.parts:
            chosen = part.select_columns(list(columns))
            for batch in chosen.iter(size):
                yield first, {name: [_plain(v) for v in values] for name, values in batch.items()}
                first += len(next(iter(batch.values())))


def _plain(value: Any) -> Any:
    """Without the keys that only other rows have, at any depth."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return value


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

    _refuse_empty(key, path)
    try:
        return datasets.load_dataset(
            data_format(path),
            data_files=[glob.escape(str(path.resolve()))],
            split="train",
            cache_dir=str(cache),
            **_reader_options(path),
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk is not the file's fault
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        # The readers raise errors of pyarrow, pandas and datasets, none of which names the line.
        raise DataError(f"{key}: {_diagnosis(path, cause)}") from error


def _refuse_empty(key: str, path: Path) -> None:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            empty = not file.read(1)
    except (OSError, EOFError) as error:
        raise DataError(f"{key}: {path} cannot be read ({error}). Check the file.") from error
    if empty:
        raise DataError(f"{key}: {path} is empty. Give a file with examples.")


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
                except json.JSONDecodeError as error:
                    return (
                        f"{path}, line {number}: not valid JSON ({error.msg}, column "
                        f"{error.colno}). Write one JSON object per line."
                    )
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
