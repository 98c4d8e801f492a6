"""The verbs that use what studies have found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from study.cli.arguments import Study


def best(
    study: Study = "study.yaml",
    arm: Annotated[str | None, typer.Option(help="full or lift.")] = None,
    dataset_size: Annotated[
        int | None, typer.Option(min=1, help="One of the study's sizes (default: the largest).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write to (default: standard output).")
    ] = None,
) -> None:
    """Print an arm's best configuration as YAML."""
    from study.cli.files import results_named
    from study.errors import UserError
    from study.reuse import best_configuration
    from study.text_files import write_text

    results = results_named(study)
    arms = results.config.arms.names
    if arm is None and len(arms) > 1:
        raise UserError(f"--arm: this study has {' and '.join(arms)}. Name one, e.g. --arm lift.")
    text = best_configuration(results, arm or arms[0], dataset_size).to_yaml()
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        typer.echo(f"Wrote {output}")
