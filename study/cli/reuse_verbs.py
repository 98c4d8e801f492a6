"""The verbs that use what studies have found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from study.cli.arguments import AnswerFormat, ExportedTable, Study
from study.cli.best import Format, write_best


def best(
    study: Study = "study.yaml",
    arm: Annotated[str | None, typer.Option(help="As in the study file, e.g. lift.")] = None,
    dataset_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training examples you will fine-tune on (default: decision.dataset_size, else "
            "the largest size).",
        ),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(help="Whose file to write; a tool that cannot express an arm says so."),
    ] = Format.STUDY,
    output: Annotated[
        str | None,
        typer.Option(help="File, or folder/, to write to (default: standard output)."),
    ] = None,
) -> None:
    """Print an arm's best configuration, for **study train** or another tool."""
    write_best(study, arm, dataset_size, format, output)


def train(
    best: Annotated[
        Path,
        typer.Argument(
            metavar="BEST",
            help="A best configuration, as **study best --output best.yaml** writes it; "
            "you may edit it.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Folder of the model, or a URL such as s3://bucket/my-model (default: the "
            "study's name and the arm's, such as my-study-lift).",
        ),
    ] = None,
    dataset_size: Annotated[
        int | None,
        typer.Option(min=1, help="Train on so many examples (default: all there are)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the study's.")] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="Send the model to this repository of the Hugging Face Hub, made private if it "
            "is new, with your own login.",
        ),
    ] = None,
) -> None:
    """Train the best configuration on all the data, and save a model that from_pretrained loads,
    with a model card. Run it again after an interruption and it goes on."""
    from study.cli.train import train_and_print

    train_and_print(best, output, dataset_size, seed, push_to_hub)


def export(
    study: Study = "study.yaml",
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File to write, or its URL; .parquet or .csv (default: CSV to standard output).",
        ),
    ] = None,
    what: Annotated[
        ExportedTable,
        typer.Option(help="A row per trial, or per evaluation, which makes the curves."),
    ] = ExportedTable.TRIALS,
) -> None:
    """Write every trial, or every evaluation, as Parquet or CSV for other tools."""
    from study.cli.export import export_and_print

    export_and_print(study, output, what.value)


def recommend(
    model: Annotated[
        str,
        typer.Option(
            metavar="PATH_OR_ID",
            help="The model: its folder, or its hub id (id@revision for a revision).",
        ),
    ],
    dataset_size: Annotated[
        int, typer.Option(min=1, help="Training examples you will fine-tune on.")
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="causal-lm, sequence-classification, or a past study's name: the task of that "
            "study.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Your training data, compared by content; may be given again."
        ),
    ] = None,
    studies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="Where past studies are: results folders or folders above them, study files, URLs "
            "of databases or buckets; may be given again (default: results and study.yaml here).",
        ),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(metavar="GIB", min=0.001, help="Memory of one device of yours."),
    ] = None,
    format: Annotated[
        AnswerFormat, typer.Option(help="For people, or for programs.")
    ] = AnswerFormat.TEXT,
) -> None:
    """Answer from past studies which arm and configuration to use; runs nothing. Exit code 3 where
    they have no answer, with the smallest study that would have one."""
    import gc

    gc.disable()  # a tenth of the command's time, and it is short

    from study.cli.recommend import recommend_and_print
    from study.reuse.identity import Asked

    asked = Asked(model, dataset_size, task, tuple(data or ()), memory_limit)
    raise typer.Exit(recommend_and_print(asked, studies or [], format is AnswerFormat.JSON))
