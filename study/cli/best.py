"""`study best`: to standard output, a file or a folder."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from study.reuse.formats import Export


class Format(StrEnum):
    """What `study.reuse.formats` can write."""

    STUDY = "study"
    DEEPSPEED = "deepspeed"
    TRANSFORMERS = "transformers"
    AXOLOTL = "axolotl"
    LLAMAFACTORY = "llamafactory"


def write_best(
    study: str, arm: str | None, dataset_size: int | None, format: Format, output: str | None
) -> None:
    """Write an arm's best configuration in a tool's format.

    Args:
        output: a file; a folder, which is there or is written with a slash at its end; None:
            standard output. Files that a format has beside its main one go to the same folder.

    Raises:
        UserError: no such configuration, a format that cannot express it, or a file in the way.
    """
    from study.basics.errors import UserError
    from study.basics.text_files import write_text
    from study.cli.files import results_named
    from study.cli.output import write_data, written_to
    from study.reuse import best_configuration
    from study.reuse.formats import export

    results = results_named(study)
    arms = results.config.arms.names
    if arm is None and len(arms) > 1:
        raise UserError(
            f"--arm: this study has {' and '.join(arms)}. Name one, e.g. --arm {arms[-1]}."
        )
    best = best_configuration(results, arm or arms[0], dataset_size)
    made = export(best.file, format.value)
    for warning in best.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if output is None:
        write_data(made.text)
        if made.siblings:
            named = ", ".join(made.siblings)
            typer.echo(f"Not shown: {named}. Write all files with --output FOLDER/.", err=True)
        return
    place = Path(output)
    file = place / made.name if output.endswith("/") or place.is_dir() else place
    texts = {file: made.text} | {file.parent / n: text for n, text in made.siblings.items()}
    _refuse_foreign(file, made)
    for path, text in texts.items():
        with written_to(output):
            write_text(path, text)
        typer.echo(f"Wrote {path}")


def _refuse_foreign(file: Path, made: Export) -> None:
    """Only what an earlier export has written is replaced: its main file or one beside it says what
    it is."""
    from study.basics.errors import UserError

    paths = [file, *(file.parent / name for name in made.siblings)]
    there = [path for path in paths if os.path.lexists(path)]
    twice = file.name in made.siblings
    if twice or (there and not any(map(_is_export, there))):
        raise UserError(
            f"{file if twice else there[0]}: this export writes a file of that name, and one is "
            "there that no export wrote, or is the one asked for. Give --output another name, or a "
            "folder of its own."
        )


def _is_export(path: Path) -> bool:
    try:
        return "Best configuration of" in path.read_text(encoding="utf-8")[:500]
    except (OSError, UnicodeDecodeError):
        return False
