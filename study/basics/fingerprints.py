"""What a model and a task's data are, by content: the same on any machine, under any path.

Quick enough to be asked by a command: of a model's weights the names, shapes and types of all
tensors and a few bytes of each, of a large data file its length and blocks spread over it. Two
models of one architecture differ in nearly all of their bytes, so a few tell them apart. A few
examples that change in a file of more than `_WHOLE` bytes may go unnoticed where its length stays
the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_FOLDER, _FILES = "folder-1", "files-1"
"""Kinds of fingerprint; the number is that of the recipe below."""
_VOLATILE = ("_name_or_path", "transformers_version", "_commit_hash")
"""Keys of config.json that say who wrote it, not what the model is."""
_SAMPLED_TENSORS, _SAMPLE = 512, 256
_WHOLE, _BLOCK, _BLOCKS = 2**26, 2**16, 128
"""A data file of at most so many bytes is read whole, of a longer one so many blocks."""
_SNAPSHOT = re.compile(r"models--(?P<id>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/?$")


def model_fingerprint(path: str, revision: str | None = None) -> str | None:
    """Of a local model folder by its content, ``folder-1:...``; of a hub id in this machine's cache
    by its commit, ``hub:owner/name@commit``.

    Returns:
        None where neither is here, or it cannot be read.
    """
    folder = Path(path).expanduser()
    try:
        if folder.is_dir():
            cached = _SNAPSHOT.search(folder.absolute().as_posix())
            if cached:
                return f"hub:{cached['id'].replace('--', '/', 1)}@{cached['commit']}"
            return f"{_FOLDER}:{_folder_hash(folder)}"
        commit = _cached_commit(path, revision or "main")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if commit is None else f"hub:{path}@{commit}"


def hub_id_of(fingerprint: str) -> str | None:
    """``owner/name`` of a hub model's fingerprint, None for a folder's."""
    kind, _, rest = fingerprint.partition(":")
    return rest.rpartition("@")[0] if kind == "hub" else None


def is_content(fingerprint: str | None) -> bool:
    """Whether it was made from files, by the recipe of this version."""
    return fingerprint is not None and fingerprint.split(":")[0] in (_FOLDER, _FILES)


def files_fingerprint(files: Iterable[Path]) -> str:
    """Of data files by their content, whatever their names and order: ``files-1:...``.

    Raises:
        OSError: one cannot be read.
    """
    digests = sorted(_file_digest(path) for path in files)
    return f"{_FILES}:{hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:32]}"


def _folder_hash(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    tensors = sorted(_tensors(folder), key=lambda found: found[0])
    every = max(1, -(-len(tensors) // _SAMPLED_TENSORS))
    for number, (name, kind, shape, path, start, length) in enumerate(tensors):
        digest.update(json.dumps([name, kind, shape]).encode())
        if number % every == 0:
            with path.open("rb") as stream:
                stream.seek(start + max(0, length - _SAMPLE) // 2)
                digest.update(stream.read(min(length, _SAMPLE)))
    return digest.hexdigest()[:32]


def _tensors(folder: Path) -> Iterator[tuple[str, str, list[int], Path, int, int]]:
    """(name, type, shape, file, first byte in it, bytes) of every tensor, however they are spread
    over files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise OSError(f"{folder} has no weights")
    for path in files:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > 100_000_000:  # the format's own limit
                raise ValueError(f"{path} is no safetensors file")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            start, end = tensor["data_offsets"]
            yield name, tensor["dtype"], tensor["shape"], path, 8 + length + start, end - start


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as stream:
        if size <= _WHOLE:
            hashlib.file_digest(stream, lambda: digest)
        else:
            for number in range(_BLOCKS):
                stream.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def _cached_commit(hub_id: str, revision: str) -> str | None:
    """The commit that a hub id stands for on this machine, without asking the hub."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if cache is None:
        home = os.environ.get("HF_HOME")
        if home is None:
            home = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
        cache = str(Path(home) / "hub")
    name = f"models--{hub_id.replace('/', '--')}"
    reference = Path(cache).expanduser() / name / "refs" / revision
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None
