"""Arguments that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study file, or the results folder of a study; [bold]demo[/bold] for the "
        "embedded example.",
    ),
]
