"""Data files by their names."""

from __future__ import annotations

from pathlib import Path, PurePath

FORMATS = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".arrow": "arrow", ".txt": "text",
}  # fmt: skip
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Around a file of text."""
_BINARY = ("parquet", "arrow")
_LFS = b"version https://git-lfs"


def suffix(path: str | PurePath) -> str:
    """The lower-case suffix that decides the format; one of `PACKED` only wraps it."""
    path = PurePath(path)
    last = path.suffix.lower()
    return PurePath(path.stem).suffix.lower() if last in PACKED else last


def data_format(path: str | PurePath) -> str | None:
    """How this file is read, or None if it cannot be."""
    found = FORMATS.get(suffix(path))
    packed = PurePath(path).suffix.lower() in PACKED
    return None if packed and found in _BINARY else found


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only says where Git LFS keeps its content, as a clone without it leaves it."""
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS
