"""Tokenised splits as memory-mapped arrays: written once per study, read by every worker.

A study's data folder holds one subfolder per version of the data and a file `current` that
names the one that the study runs on; only who runs the study sets it. Nothing is ever changed in
place: a version is written to a temporary folder and renamed, so a reader sees all of it or none
of it. A version's fingerprint is its content's: who is told that can open no other data.
Reading back needs numpy alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock

from study.basics.errors import DataError, OtherDataError
from study.basics.owned import is_marked, is_tokenised_data, mark
from study.protocol.records import DataSummary

SPLITS = ("pool", "validation", "test", "retention")
IGNORED = -100
"""Label of a token that carries no loss (Hugging Face's convention)."""

_CURRENT = "current"
_SUMMARY = "summary.json"
_TEMPORARY = ".tmp-"
_UNUSED_SECONDS = 3600.0
"""A version that was only looked at, by `study plan` or `study check`, stays for so long."""


@dataclass(frozen=True)
class TokenisedSplit:
    """Examples of one split, unpadded.

    Attributes:
        tokens: (all tokens,) int32, the examples one after the other.
        offsets: (examples + 1,) int64; example i is ``tokens[offsets[i]:offsets[i + 1]]``.
        targets: (examples,) int32. causal-lm: where the loss begins inside the example, at least
            1, since a model that predicts the next token never predicts the first.
            Classification: the label's id.
        num_labels: number of classes, or None for causal-lm.
        sequence_length: no example is longer than this many tokens.
        loss: (all tokens,) bool, which of them carry loss; None: in every example all from its
            target on.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    num_labels: int | None
    sequence_length: int
    loss: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def is_classification(self) -> bool:
        return self.num_labels is not None

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(examples,) int64: tokens per example."""
        return np.diff(self.offsets)

    @functools.cached_property
    def target_counts(self) -> np.ndarray:
        """(examples,) int64: tokens that carry loss once labels are shifted by one;
        classification: ones."""
        if self.is_classification:
            return np.ones(len(self), dtype=np.int64)
        if self.loss is not None:
            counts = np.concatenate([[0], np.cumsum(self.loss, dtype=np.int64)])
            return np.diff(counts[self.offsets])
        return self.lengths - self.targets

    def input_ids(self, index: int) -> np.ndarray:
        """(tokens,) int32: the example's tokens."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def labels(self, index: int) -> np.ndarray:
        """(tokens,) int32, aligned with `input_ids` (not shifted); -100 where there is no loss."""
        labels = np.array(self.input_ids(index))
        labels[: self.targets[index]] = IGNORED
        if self.loss is not None:
            labels[~self.loss[self.offsets[index] : self.offsets[index + 1]]] = IGNORED
        return labels

    def parts(self, index: int) -> list[tuple[np.ndarray, bool]]:
        """The example's tokens in pieces, each with whether it carries loss: what a person who
        looks at it wants to see apart. Classification: one piece, which does not."""
        tokens = self.input_ids(index)
        if self.is_classification:
            return [(tokens, False)]
        has_loss = self.labels(index) != IGNORED
        changes = np.flatnonzero(np.diff(has_loss)) + 1
        begins = [0, *changes.tolist()]
        pieces = np.split(tokens, changes)
        return [(piece, bool(has_loss[at])) for piece, at in zip(pieces, begins, strict=True)]

    def label(self, index: int) -> int:
        """Classification: the id of the example's class."""
        return int(self.targets[index])


@dataclass(frozen=True)
class StudyData:
    """A study's tokenised data. `retention` is None when it is not measured.

    `pad_token_id` must also be the model's (``model.config.pad_token_id``): classifiers built on
    decoders find the last token of a sequence by it. `num_labels` is None for causal-lm.
    """

    pool: TokenisedSplit
    validation: TokenisedSplit
    test: TokenisedSplit
    retention: TokenisedSplit | None
    summary: DataSummary
    pad_token_id: int
    num_labels: int | None

    @classmethod
    def open(cls, folder: Path, fingerprint: str | None = None) -> Self:
        """Map data that `prepare_data` left in `folder`.

        Args:
            fingerprint: of the data that are meant; None: those that the study runs on.

        Raises:
            OtherDataError: only other data are there.
            DataError: there are none, or they are damaged.
        """
        try:
            if fingerprint is None:
                return cls._load(_current(folder))
            return cls._load(version_folder(folder, fingerprint))
        except FileNotFoundError as error:
            raise DataError(
                f"{folder}: no tokenised data here ({error.filename} is missing). Run the study "
                "once more: it is prepared at its start."
            ) from error
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(
                f"{folder}: the tokenised data is damaged ({error}). Delete this folder and run "
                "the study again: it is then made anew."
            ) from error

    @classmethod
    def _load(cls, version: Path) -> Self:
        header = json.loads((version / _SUMMARY).read_text(encoding="utf-8"))
        summary = DataSummary.from_dict(header["summary"])
        splits = {
            name: _load_split(version, name, header["num_labels"], header["sequence_length"])
            for name in SPLITS
            if getattr(summary, name)
        }
        for name, split in splits.items():
            if len(split) != getattr(summary, name):
                raise ValueError(f"{name} has {len(split)} examples, not as in {_SUMMARY}")
        return cls(
            pool=splits["pool"],
            validation=splits["validation"],
            test=splits["test"],
            retention=splits.get("retention"),
            summary=summary,
            pad_token_id=header["pad_token_id"],
            num_labels=header["num_labels"],
        )


def _load_split(
    version: Path, name: str, num_labels: int | None, sequence_length: int
) -> TokenisedSplit:
    tokens, offsets, targets = (
        np.load(version / f"{name}.{part}.npy", mmap_mode="r")
        for part in ("tokens", "offsets", "targets")
    )
    masked = version / f"{name}.loss.npy"
    loss = np.load(masked, mmap_mode="r") if masked.is_file() else None
    fits = loss is None or len(loss) == len(tokens)
    if len(offsets) != len(targets) + 1 or offsets[-1] != len(tokens) or not fits:
        raise ValueError(f"the lengths of {name}'s arrays do not fit each other")
    # Small and read at every step: worth holding as plain arrays.
    offsets, targets = np.array(offsets), np.array(targets)
    return TokenisedSplit(tokens, offsets, targets, num_labels, sequence_length, loss)


def stored_summary(folder: Path, key: str) -> DataSummary | None:
    """The summary of version `key` if that version is complete in `folder`, else None."""
    path = folder / key / _SUMMARY
    if not path.is_file():
        return None
    return DataSummary.from_dict(json.loads(path.read_text(encoding="utf-8"))["summary"])


def use_data(folder: Path, fingerprint: str) -> Path:
    """Make these data the ones that the study runs on, and remove those of before. Only for who
    holds the study's lock.

    Returns:
        The folder of their version.

    Raises:
        DataError: they are not there, or the disk is full or not writable.
    """
    temporary = folder / f".{_CURRENT}.{os.getpid()}"
    with _disk_errors(folder), FileLock(folder / ".lock"):
        version = version_folder(folder, fingerprint)
        temporary.write_text(version.name, encoding="utf-8")
        os.replace(temporary, folder / _CURRENT)
        _remove_versions(folder, version, unused_seconds=0.0)
    return version


@contextlib.contextmanager
def new_version(folder: Path, key: str) -> Iterator[Path]:
    """A temporary folder that becomes version `key` if the block succeeds, else goes away. Under
    the folder's lock.

    Raises:
        DataError: the disk is full or not writable.
    """
    with _disk_errors(folder):
        _remove_versions(folder, folder / key, _UNUSED_SECONDS)
        temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex[:12]}"
        try:
            mark(temporary)
            yield temporary
            os.replace(temporary, folder / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _current(folder: Path) -> Path:
    """The version that the study runs on; before it has begun, the one that was looked at last."""
    try:
        return folder / (folder / _CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        versions = _versions(folder)
        if not versions:
            raise
        return max(versions, key=lambda version: version.stat().st_mtime_ns)


def version_folder(folder: Path, fingerprint: str) -> Path:
    """The folder of the version with this content.

    Raises:
        OtherDataError: only others are there.
        FileNotFoundError: none is.
    """
    versions = _versions(folder)
    for version in versions:
        summary = stored_summary(folder, version.name)
        if summary is not None and summary.fingerprint == fingerprint:
            return version
    if not versions:
        raise FileNotFoundError(2, "no version is there", str(folder / f"*/{_SUMMARY}"))
    raise OtherDataError(
        f"{folder}: other data are here than those that the study was started with (fingerprint "
        f"{fingerprint[:16]}). Nothing was trained on them. Something else has replaced them: see "
        "that no other study has this results folder, and run the study again."
    )


def _versions(folder: Path) -> list[Path]:
    """The one that was asked for last comes first."""
    found = [p for p in folder.glob("*/") if not p.is_symlink() and is_tokenised_data(p)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _remove_versions(folder: Path, keep: Path, unused_seconds: float) -> None:
    """Remove versions that nobody has asked for in a while, but for `keep` and the one that the
    study runs on, and what a killed process was writing."""
    kept = {keep.name}
    with contextlib.suppress(FileNotFoundError):
        kept.add(_current(folder).name)
    begun = [p for p in folder.glob(f"{_TEMPORARY}*") if not p.is_symlink() and is_marked(p)]
    limit = time.time() - unused_seconds
    old = [p for p in _versions(folder) if p.name not in kept and p.stat().st_mtime <= limit]
    for path in (*begun, *old):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the tokenised data ({error}). Free disk space, or set "
            "storage.results to a folder with room."
        ) from error


def write_version(
    version: Path,
    splits: Mapping[str, TokenisedSplit],
    summary: DataSummary,
    pad_token_id: int,
) -> DataSummary:
    """Write the splits' arrays and the summary into `version`.

    Returns the summary with its fingerprint: a hash over every array's bytes, so two machines
    that prepare the same data agree on it.

    Raises:
        OSError: the disk is full.
    """
    digest = hashlib.sha256()
    for name, split in splits.items():
        for part in ("tokens", "offsets", "targets", "loss"):
            array = getattr(split, part)
            if array is None:
                continue
            digest.update(f"{name}.{part}:{array.dtype}:{len(array)}".encode())
            digest.update(np.ascontiguousarray(array).data)
            with (version / f"{name}.{part}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                _to_disk(file)
    pool = splits["pool"]
    header: dict[str, Any] = {
        "num_labels": pool.num_labels,
        "sequence_length": pool.sequence_length,
        "pad_token_id": pad_token_id,
    }
    digest.update(json.dumps([header, summary.label_names]).encode())
    summary = replace(summary, fingerprint=digest.hexdigest())
    with (version / _SUMMARY).open("w", encoding="utf-8") as file:
        json.dump(header | {"summary": summary.to_dict()}, file, indent=2)
        _to_disk(file)
    return summary


def _to_disk(file: Any) -> None:
    # A rename may reach the disk before the contents do; after a power cut the version would
    # then look complete with empty arrays.
    file.flush()
    os.fsync(file.fileno())
