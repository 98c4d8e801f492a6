"""What the program may delete or replace: only what it can prove that it made.

A results folder is used once it bears our mark, and that is written only where nothing else has a
name that we use. Below it is deleted what has a name of ours, one by one: a folder goes when
nothing is left in it. Folders of our own that lie elsewhere bear the mark themselves. Versions of
this program before the mark are known by a record or by tokenised data, which nobody else writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from study.basics.errors import StoreError
from study.basics.remote import RemoteFolder
from study.basics.text_files import write_text

MARK = ".made-by-study"
_SIGNED = "Made by finetune-study."
_WORDS = f"{_SIGNED} It replaces and removes files of its own here.\n"
_KEY = "[0-9a-f]"
_NAMES = (
    "data", "prefix_cache", "report", "model", "logs", "ray", "checkpoints", "tensorboard", "wandb",
    "study.db", "study.replaced", "mlflow.db", "run.json", "model.json",
)  # fmt: skip
"""What a results folder has of ours, but for hidden files."""
_PUBLISHED = "results.json.gz"

REMAKEABLE = (
    "data/current", "data/.current.*", "data/.lock", "data/.fetch.lock", "data/.tmp-*",
    f"data/{_KEY * 16}", f"prefix_cache/*/{_KEY * 24}", "prefix_cache/*/.lock",
    "prefix_cache/*/check-*", "ray/tune", "ray/group*", "ray/check-*",
)  # fmt: skip
"""Names, as patterns below a results folder, of what can be made again."""
_TRIALS = ("*-n*-r*-*", "*-final")
CHECKPOINTS = tuple(f"checkpoints/{t}/{name}" for t in _TRIALS for name in ("step-*", "partial"))
_EVERYTHING = (
    *REMAKEABLE, *CHECKPOINTS, "report/report.*", "report/trials.*", "report/figures/*.svg",
    "report/figures/*.png", "logs/study.log", "logs/check.log", "logs/baseline*.log",
    *(f"logs/{trial}.log" for trial in _TRIALS), *(f"tensorboard/{trial}" for trial in _TRIALS),
    "study.db*", "study.replaced", ".published", ".driver.lock", MARK,
)  # fmt: skip
_SHARED = ("mlflow.db*", "wandb/*")
"""Trackers' own, which keep other programs' runs there too if those run in the same folder."""


def is_marked(folder: Path) -> bool:
    """Whether a folder bears our mark."""
    try:
        return (folder / MARK).read_text(encoding="utf-8").startswith(_SIGNED)
    except (OSError, UnicodeDecodeError):
        return False


def mark(folder: Path) -> None:
    """Make a folder, unless it is there, and mark it as ours.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not is_marked(folder):
        write_text(folder / MARK, _WORDS)


def is_tokenised_data(version: Path) -> bool:
    """Whether a folder is a version of a study's tokenised data."""
    try:
        found = json.loads((version / "summary.json").read_text(encoding="utf-8"))
        return "fingerprint" in found["summary"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_ours(root: Path) -> bool:
    """Whether a results folder was made by this program, in any version."""
    return (
        is_marked(root)
        or _is_record(root / "study.db")
        or any(map(is_tokenised_data, root.glob(f"data/{_KEY * 16}")))
    )


def check_place(root: Path) -> None:
    """Writes nothing.

    Raises:
        StoreError: a results folder holds files that are not ours under names of ours.
    """
    taken = [] if is_ours(root) else [n for n in _NAMES if _is_taken(root / n)]
    if taken:
        raise _foreign(str(root), [_shown(root, name) for name in taken], str(root / "results"))


def claim(root: Path, url: str | None = None) -> None:
    """Make a results folder ours, before anything else is written to it.

    Args:
        url: of the results, where `root` is this machine's copy, which is ours by its name.

    Raises:
        StoreError: it holds files that are not ours under names of ours, or cannot be written.
    """
    if url is None:
        check_place(root)
    try:
        mark(root)
    except OSError as error:
        raise StoreError(
            f"{root}: cannot be written ({error.strerror or error}). Set storage.results to a "
            "folder of yours."
        ) from error


def check_url(url: str) -> bool:
    """Whether the results folder at a URL is ours already. Writes nothing.

    Raises:
        StoreError: it holds files that are not ours under names of ours, or cannot be reached.
    """
    remote = RemoteFolder(url)
    if remote.modified(MARK) is not None:
        return True
    names = remote.names()
    if {_PUBLISHED, "data/current"} & {*names}:  # of an earlier version
        return False
    taken = sorted({n.partition("/")[0] for n in names} & {*_NAMES})
    if taken:
        raise _foreign(url, taken, f"{url}/results")
    return False


def claim_url(url: str) -> None:
    """`claim` of the results folder at a URL."""
    if not check_url(url):
        RemoteFolder(url).write(MARK, _WORDS.encode())


def remove_url(url: str) -> None:
    """Remove what we put into a claimed folder at a URL."""
    remote = RemoteFolder(url)
    for name in (*_NAMES, MARK):
        remote.remove(name)


def everything(root: Path) -> tuple[str, ...]:
    """Names, as patterns, of all that is ours in a study's results folder."""
    alone = {path.name for path in root.glob("[!.]*")} <= {*_NAMES}
    return (*_EVERYTHING, *_SHARED) if alone else _EVERYTHING


def made(root: Path, patterns: Collection[str]) -> list[Path]:
    """What is there of ours below a results folder that is ours.

    Args:
        patterns: such as `REMAKEABLE`.
    """
    found = {path for pattern in patterns for path in root.glob(pattern)}
    versions = {path for path in found if path.match(f"data/{_KEY * 16}")}
    return sorted(found - {path for path in versions if not is_tokenised_data(path)})


def remove(root: Path, patterns: Collection[str]) -> None:
    """Remove what is `made` of ours, and the folders above it, `root` too, that are empty then.

    Raises:
        OSError: something cannot be removed.
    """
    found = made(root, patterns)
    above = {(root / pattern).parent for pattern in patterns if "*" not in pattern} | {
        folder for path in found for folder in path.parents if folder.is_relative_to(root)
    }
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in sorted(above, reverse=True):
        with contextlib.suppress(OSError):  # something else is in it
            folder.rmdir()


def remove_checkpoint(folder: Path) -> None:
    """Remove a trial's checkpoint, if there is one; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        remove(folder, ("step-*", "partial"))


def _is_taken(path: Path) -> bool:
    """Whether a name is in use by more than an empty folder."""
    if not path.is_dir():
        return os.path.lexists(path)
    return next(path.iterdir(), None) is not None


def _shown(root: Path, name: str) -> str:
    """A name, and what is there: by that people know their own folders."""
    path = root / name
    if not path.is_dir():
        return name
    inside = sorted(p.name for p in path.iterdir())
    more = ", ..." if len(inside) > 3 else ""
    return f"{name}/ ({', '.join(inside[:3])}{more})"


def _foreign(place: str, taken: list[str], better: str) -> StoreError:
    return StoreError(
        f"{place} holds {', '.join(taken)}, which this program did not make. It keeps files of its "
        "own under such names, and replaces and removes them there. Nothing was written or "
        f"removed. Set storage.results (study train: --output) to a place of its own, such as "
        f"{better}."
    )


def _is_record(database: Path) -> bool:
    """Whether an SQLite file is the record of a study."""
    if not database.is_file():
        return False
    url = f"file:{quote(str(database.absolute()))}?mode=ro"
    query = "SELECT 1 FROM study_user_attributes WHERE key = 'schema_version'"
    try:
        with contextlib.closing(sqlite3.connect(url, uri=True, timeout=60)) as connection:
            return connection.execute(query).fetchone() is not None
    except sqlite3.Error:
        return False
