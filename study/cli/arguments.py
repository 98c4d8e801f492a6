"""Arguments that several verbs take."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study file, or the results folder of a study; **demo** for the embedded example.",
    ),
]


class AnswerFormat(StrEnum):
    """How `study recommend` answers."""

    TEXT = "text"
    JSON = "json"


class ExportedTable(StrEnum):
    """The tables of `study export`, see `study.analysis.table.rows_of`."""

    TRIALS = "trials"
    EVALUATIONS = "evaluations"


def assigned(pairs: Iterable[str], option: str, form: str, example: str) -> dict[str, str]:
    """What an option that may be given several times says, such as ``--env NAME=VALUE``."""
    from study.basics.errors import UserError

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UserError(f"{option} {pair}: write {form}, e.g. {option} {example}.")
        found[name] = value
    return found
