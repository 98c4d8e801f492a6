"""Which files a STUDY argument means, and writing and removing them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import typer

from study.cli.output import size
from study.config import load_config
from study.errors import StoreError, UserError
from study.paths import StudyPaths
from study.store import StudyStore

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
    from study.api import open_study

    if study == DEMO:
        study = str(DEMO_FOLDER / "study.yaml")
    if "://" not in study and not Path(study).exists():
        raise StoreError(
            f"No study {study}. Name a study file or a results folder; `study run demo` makes one."
        )
    return open_study(study)


def _write_demo() -> Path:
    from study.demo.text import write_demo_files
    from study.templates import render_template

    folder = DEMO_FOLDER.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_demo_files(folder)
    path = folder / "study.yaml"
    if not path.is_file():  # the user's edits to it stay
        model = Path(__file__).parents[1] / "demo" / "base_model"
        write_text(
            path,
            render_template(
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
    from study.templates import TEMPLATES, render_template

    if template not in TEMPLATES:
        raise UserError(f"--template {template}: unknown. Use one of: {', '.join(TEMPLATES)}.")
    if path.exists() and not force:
        raise UserError(f"{path} exists. Give another name, or --force to replace it.")
    if template == DEMO:
        demo = _write_demo()
        if path.resolve() != demo:
            write_text(path, demo.read_text())
        return
    write_text(path, render_template(template))


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def clean_study(study: str, *, everything: bool, yes: bool) -> None:
    """Remove what can be made again or, with `everything`, the whole results folder."""
    if study == DEMO:
        study = str(DEMO_FOLDER / "study.yaml")
    path = Path(study)
    is_results = path.is_dir() and StudyPaths(path).database.is_file()
    root = path if is_results else load_config(study_file(study)).results_dir
    paths = StudyPaths(root)
    targets = [root] if everything else [paths.data, paths.ray]
    found = [(target, _bytes_below(target)) for target in targets if target.exists()]
    if not found:
        typer.echo(f"Nothing to remove in {root}.")
        return
    for target, count in found:
        typer.echo(f"{size(count):>12}  {target}")
    question = "Remove this study's results for good?" if everything else "Remove these?"
    if not yes and not typer.confirm(question):
        typer.echo("Nothing was removed.")
        return
    for target, _ in found:
        shutil.rmtree(target)
    typer.echo(f"Removed {size(sum(count for _, count in found))}.")


def _bytes_below(path: Path) -> int:
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_file() or f.is_symlink())
