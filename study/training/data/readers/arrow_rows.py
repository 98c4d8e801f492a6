"""Columns that have types: Parquet, Arrow files, and datasets of Hugging Face's library."""

from __future__ import annotations

import contextlib
import decimal
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.training.data.readers.base import Part, UnreadableError, WrittenFloat

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

_BATCH = 1000


class ParquetRows(Part):
    """Rows of a Parquet file, of which only the columns asked for are read."""

    def __init__(self, path: Path) -> None:
        from pyarrow.parquet import ParquetFile

        self.name = str(path)
        with _explained(self.name, "Parquet"):
            self._file = ParquetFile(path)
            self._schema = self._file.schema_arrow
        self.columns = self._schema.names

    def label_names(self, column: str) -> list[str] | None:
        return _label_names(self._schema, column)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        with _explained(self.name, "Parquet"):
            for batch in self._file.iter_batches(_BATCH, columns=list(columns)):
                yield from _rows(batch, columns)


class ArrowRows(Part):
    """Rows of an Arrow file or stream; `datasets` writes streams."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self.name = str(path)
        with _explained(self.name, "Arrow"):
            source = pyarrow.memory_map(str(path))
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            table = (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(source)
            self._table = table.read_all()  # a map of the file, not a copy
        self.columns = self._table.column_names

    def label_names(self, column: str) -> list[str] | None:
        return _label_names(self._table.schema, column)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        with _explained(self.name, "Arrow"):
            for batch in self._table.select(list(columns)).to_batches(_BATCH):
                yield from _rows(batch, columns)


class DatasetRows(Part):
    """Rows of a dataset of the hub."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.name = name
        self._dataset = dataset
        self.columns = dataset.column_names

    def label_names(self, column: str) -> list[str] | None:
        return getattr(self._dataset.features[column], "names", None)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        chosen = self._dataset.select_columns(list(columns)).with_format("arrow")
        for batch in chosen.iter(_BATCH):
            yield from _rows(batch, columns)


def _rows(batch: pyarrow.RecordBatch | pyarrow.Table, columns: Sequence[str]) -> Iterator[tuple]:
    values = []
    for column in columns:
        found = batch.column(column)
        narrow = str(found.type) in ("float", "halffloat")
        # 0.1 in 32 bits is 0.10000000149 in the 64 bits of Python's.
        plain = found.to_numpy(zero_copy_only=False) if narrow and not found.null_count else None
        values.append(
            found.to_pylist(maps_as_pydicts="lossy")
            if plain is None
            else [WrittenFloat(str(value)) for value in plain]
        )
    for row in zip(*values, strict=True):
        yield tuple(map(_plain, row))


def _plain(value: Any) -> Any:
    """A value of Arrow's as one that JSON has. Keys without a value go, at any depth: a struct has
    those of all rows."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, decimal.Decimal):
        return WrittenFloat(str(value))
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    return str(value)


def _label_names(schema: pyarrow.Schema, column: str) -> list[str] | None:
    """Of the features that `datasets` writes into a file's schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) else None


@contextlib.contextmanager
def _explained(name: str, kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"{name} holds a text that is not UTF-8 ({error.reason}). Write the file anew."
        ) from error
    except pyarrow.ArrowException as error:
        first_line = str(error).strip().split("\n")[0]
        raise UnreadableError(f"{name} cannot be read as {kind} ({first_line}).") from error
