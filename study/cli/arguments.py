"""Arguments that several verbs take."""

from __future__ import annotations

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
