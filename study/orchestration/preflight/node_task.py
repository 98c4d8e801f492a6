"""What one node sees: run there in a process of its own. No Ray in here, and torch only in
`prepare`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from study.basics.shipped import package_folder

LIBRARIES = ("ray", "torch", "deepspeed", "transformers", "optuna")
PACKAGE = "finetune-study"
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver program sees it; sizes in bytes."""

    name: str
    total: int
    free: int


@dataclass(frozen=True)
class Question:
    """What a node is asked.

    Attributes:
        tokens: files that the driver has written, and what they say.
        database: Optuna storage URL; None: a file of the driver's own.
        model_files: sizes in bytes of a local model folder's files by path; empty for a hub id.
        cache_folder: of the prefix cache on each node's own disk; None: it has none.
        results_url: of the results, if they are not in a folder.
    """

    tokens: Mapping[str, str]
    database: str | None
    model_files: Mapping[str, int]
    cache_folder: str | None = None
    results_url: str | None = None


@dataclass(frozen=True)
class Answer:
    """What it said.

    Attributes:
        versions: of Python, of every library that results may depend on, of this package.
        gpus: all of the node's; None where they cannot be asked.
        memory: bytes of memory free for new processes.
        unseen: per path that should be there too, what is wrong.
        database: why the database cannot be opened; empty when it can.
    """

    versions: dict[str, str]
    gpus: tuple[Gpu, ...] | None
    memory: int
    unseen: dict[str, str]
    database: str


def look_around(question: Question) -> Answer:
    """Everything that takes no more than seconds."""
    unseen = {
        path: why
        for path, said in question.tokens.items()
        if (why := _unread(path, said) or _unwritable_beside(path))
    }
    for path, size in question.model_files.items():
        if why := _differs(path, size):
            unseen[path] = why
    if question.results_url is not None and (why := _unreachable(question.results_url)):
        unseen[question.results_url] = why
    if question.cache_folder is not None and (why := unwritable(Path(question.cache_folder))):
        unseen[question.cache_folder] = why
    return Answer(own_versions(), _gpus(), free_memory(), unseen, _database(question))


def prepare(device_type: str) -> float:
    """Seconds that importing DeepSpeed takes on this node."""
    from study.training.engine.ops import prepare_deepspeed

    began = time.monotonic()
    prepare_deepspeed(device_type)
    return time.monotonic() - began


def own_versions() -> dict[str, str]:
    """Versions of what must be the same everywhere; of this package, a digest of its code too."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, PACKAGE):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    root, digest = package_folder(), hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    found[PACKAGE] += f" ({digest.hexdigest()[:8]})"
    return found


def free_memory() -> int:
    """Bytes that new processes may take: of the machine, or of the container if that has less."""
    free = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # "max": no limit
        return free
    return min(free, limit - used + int(stat.get("inactive_file", 0)))


def unwritable(folder: Path) -> str:
    """Why no file can be made in `folder`, which need not exist; empty when one can."""
    existing = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not existing.is_dir():
        return f"{existing} is a file"
    probe = existing / f".study-check-{os.getpid()}-{time.monotonic_ns()}"
    try:
        # A full disk makes the file and refuses what is written to it.
        probe.write_bytes(b"\0" * 4096)
    except OSError as error:
        return f"{existing}: {error.strerror}"
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return ""


def _unread(path: str, said: str) -> str:
    try:
        return "" if Path(path).read_text() == said else "another file is there"
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return error.strerror or type(error).__name__


def _unwritable_beside(path: str) -> str:
    why = unwritable(Path(path).parent)
    return f"can be read, but nothing written ({why})" if why else ""


def _differs(path: str, size: int) -> str:
    try:
        found = os.stat(path).st_size
    except OSError as error:
        return "is not there" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return "" if found == size else f"has {found} bytes instead of {size}"


def _unreachable(url: str) -> str:
    """Why nothing can be written below a URL; empty when something can."""
    from study.basics.errors import StoreError
    from study.basics.remote import RemoteFolder

    name = f".study-check-{os.getpid()}-{time.monotonic_ns()}"
    try:
        remote = RemoteFolder(url)
        remote.write(name, b"")
        remote.remove(name)
    except StoreError as error:
        return f"cannot be used ({error})"
    return ""


def _database(question: Question) -> str:
    from study.basics.errors import StoreError
    from study.store.connect import stored_study_names

    if question.database is None:
        return ""
    try:
        stored_study_names(question.database)
    except StoreError as error:
        return str(error)
    return ""


def _gpus() -> tuple[Gpu, ...] | None:
    """By NVIDIA's own program, which sees all of them whatever Ray has hidden from this process."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=name,memory.total,memory.free"
    try:
        told = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=30, check=True,
        ).stdout  # fmt: skip
        rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line]
        return tuple(Gpu(name, int(total) << 20, int(free) << 20) for name, total, free in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
