"""Small data files in every supported format, and study configurations that use them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.config.load import StudyConfig

Row = Mapping[str, Any]


def write_jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[Row], separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Row]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(r) for r in rows]), path)
    return path


def text_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows of distinct texts of different lengths."""
    return [{"text": f"text number {i} " + "word " * (i % 7)} for i in range(start, start + count)]


def task_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows of distinct questions and answers."""
    return [
        {"question": f"What is {i} plus {i}?", "answer": f" It is {2 * i}." + "!" * (i % 5)}
        for i in range(start, start + count)
    ]


def labelled_rows(count: int) -> list[dict[str, str]]:
    """Rows of distinct texts in three classes."""
    names = ("pear", "apple", "fig")
    return [{"text": f"fruit number {i}", "kind": names[i % 3]} for i in range(count)]


def study_config(
    data: Mapping[str, Any], task: str = "causal-lm", sequence_length: int = 64, **other: Any
) -> StudyConfig:
    """A study over `data`; retention is off unless asked for."""
    return StudyConfig.model_validate(
        {
            "name": "tiny",
            "model": {"path": "unused"},
            "task": task,
            "data": {"retention": None, **data},
            "dataset_sizes": [4],
            "arms": {"full": {}, "lift": {}},
            "training": {"sequence_length": sequence_length},
            **other,
        }
    )


DEMO_PATHS = {"model": "./base-model", "task": "./task.jsonl", "general": "./general.jsonl"}
