"""Which files a STUDY argument means, and writing and removing them."""

from __future__ import annotations

import math
from pathlib import Path

import typer
from filelock import FileLock, Timeout

from study.basics import owned
from study.basics.database_url import sqlite_path
from study.basics.errors import StoreError, UserError
from study.basics.owned import REMAKEABLE, check_place, made, remove
from study.basics.paths import StudyPaths
from study.basics.remote import is_remote
from study.basics.text_files import write_text
from study.basics.text_format import byte_size
from study.cli.examples.demo import BASE_MODEL
from study.config.load import StudyConfig, load_config
from study.protocol.results import StudyResults
from study.store.connect import stored_study_names
from study.store.study_store import StudyStore

DEMO = "demo"
DEMO_FOLDER = Path("study-demo")


def study_file(study: str) -> Path:
    """The study file that an argument means; for ``demo`` it is written first.

    Raises:
        UserError: there is no such file.
    """
    if study == DEMO:
        return _write_demo()
    path = Path(study)
    if path.is_dir():
        path = path / "study.yaml"
    if not path.is_file():
        raise UserError(
            f"No study file {path}. Write one with `study init`, or try `study run demo`."
        )
    return path


def open_named(study: str) -> StudyStore:
    """The store of the study that an argument means."""
    from study.store.opening import open_study

    if study == DEMO:
        study = str(DEMO_FOLDER / "study.yaml")
    if "://" not in study and not Path(study).exists():
        raise StoreError(
            f"No study {study}. Name a study file or a results folder; `study run demo` makes one."
        )
    return open_study(study)


def results_named(study: str) -> StudyResults:
    """Everything on record of the study that an argument means: a study file, a results folder,
    the URL of one, or of a database.

    Raises:
        StoreError: there is no such study.
    """
    from study.store.opening import read_study

    if study == DEMO or not (is_remote(study) or Path(study).exists()):
        return open_named(study).results()
    return read_study(study)


def driven_here(study: str) -> StudyStore:
    """The store that the study's driver reads, for writing.

    Raises:
        UserError: the results are at a URL, and the driver is not on this machine.
        StoreError: there is no such study.
    """
    if is_remote(study):
        raise UserError(f"{study}: this works where the study runs. Name its study file there.")
    store = open_named(study)
    recorded = store.info("config")["storage"]
    published = recorded["database"] is None and is_remote(recorded["results"])
    if published and math.isinf(store.running_since):
        raise UserError(
            f"The study at {recorded['results']} is not running on this machine, and this works "
            "where it runs; as a job, `study stop JOB --address` stops it as a whole."
        )
    return store


def _write_demo() -> Path:
    from study.cli.examples.demo.text import write_demo_files
    from study.cli.examples.templates import render_template

    folder = DEMO_FOLDER.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_demo_files(folder)
    path = folder / "study.yaml"
    if not path.is_file():  # the user's edits to it stay
        model = BASE_MODEL
        write_text(
            path,
            _editor_line()
            + render_template(
                DEMO,
                model=str(model),
                task=str(folder / "task.jsonl"),
                general=str(folder / "general.jsonl"),
            ),
        )
    return path


def write_study_file(path: Path, template: str, *, force: bool) -> None:
    """Write a template.

    Raises:
        UserError: unknown template, or the file exists and `force` is off.
    """
    from study.cli.examples.templates import TEMPLATES, render_template

    if template not in TEMPLATES:
        raise UserError(f"--template {template}: unknown. Use one of: {', '.join(TEMPLATES)}.")
    if path.exists() and not force:
        raise UserError(f"{path} exists. Give another name, or --force to replace it.")
    if template == DEMO:
        demo = _write_demo()
        if path.resolve() != demo:
            write_text(path, demo.read_text())
        return
    write_text(path, _editor_line() + render_template(template))


def _editor_line() -> str:
    """The comment by which an editor finds the schema of a study file."""
    from study.config.schema import STUDY_FILE

    return f"# yaml-language-server: $schema={STUDY_FILE.as_uri()}\n"


def clean_study(study: str, *, everything: bool, yes: bool) -> None:
    """Remove what can be made again or, with `everything`, the whole results folder."""
    if study == DEMO:
        study = str(DEMO_FOLDER / "study.yaml")
    path = Path(study)
    is_results = path.is_dir() and StudyPaths(path).database.is_file()
    config = None if is_results else load_config(study_file(study))
    root = path if config is None else config.results_dir
    check_place(root)
    paths, patterns = StudyPaths(root), owned.everything(root) if everything else REMAKEABLE
    if everything and config is not None:
        _refuse_other_studies(config)
    if config is not None and config.prefix_cache.folder is not None:
        # It lies on each node's own disk, and other studies may use it too.
        typer.echo(f"Not touched: the prefix cache in {config.prefix_cache.folder}, on each node.")
    found = dict[str, int]()
    for path in made(root, patterns):
        name = path.relative_to(root).parts[0]
        found[name] = found.get(name, 0) + _bytes_in(path)
    if not found:
        typer.echo(f"Nothing to remove in {root}.")
        return
    for name, count in found.items():
        typer.echo(f"{byte_size(count):>12}  {root / name}")
    question = "Remove this study's results for good?" if everything else "Remove these?"
    if config is not None and config.results_url is not None:
        typer.echo(f"Not touched: what is at {config.results_url}.")
        question = "Remove this machine's working copy?" if everything else question
    if not yes and not typer.confirm(question):
        typer.echo("Nothing was removed.")
        return
    try:
        with FileLock(paths.lock, timeout=0):
            remove(root, patterns)
    except Timeout:
        raise StoreError(
            f"{root}: the study is running (lock: {paths.lock}). Stop it first."
        ) from None
    typer.echo(f"Removed {byte_size(sum(found.values()))}.")
    left = [root / name for name in found if (root / name).exists()]
    if left:
        typer.echo(f"Left there, not made by this program: what is in {', '.join(map(str, left))}.")


def _refuse_other_studies(config: StudyConfig) -> None:
    """One results folder may hold several studies, and one database several programs' studies.

    Raises:
        StoreError: others would go with this one.
    """
    path = sqlite_path(config.database_url)
    if path is None or path.absolute() != StudyPaths(config.results_dir).database.absolute():
        return
    names = {name.partition("/")[0] for name in stored_study_names(config.database_url)}
    others = sorted(names - {config.name})
    if others:
        raise StoreError(
            f"{path} holds other studies too: {', '.join(others)}. To remove them all, name the "
            f"results folder: study clean {config.results_dir} --all"
        )


def _bytes_in(path: Path) -> int:
    """Disk in use: the prefix cache's files are mostly holes."""
    found = (f.lstat() for f in (path, *path.rglob("*")) if f.is_file() or f.is_symlink())
    return sum(min(stat.st_size, stat.st_blocks * 512) for stat in found)
