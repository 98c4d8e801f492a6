"""`study cluster`: files that start a Ray cluster and run a study on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.arguments import assigned

if TYPE_CHECKING:
    from study.launch import Rendered

cluster_app = typer.Typer(
    help="Write the files that start a Ray cluster and run a study on it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@cluster_app.callback()
def _group() -> None:
    pass


@cluster_app.command(
    epilog="For example **study cluster render slurm study.yaml --nodes 4 --gpus-per-node 8 "
    "--set partition=gpu --output job.sh**. The files in cluster/ are the examples that are "
    "filled."
)
def render(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="kuberay, slurm, aws, gcp or local.")
    ],
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study file.")] = "study.yaml",
    output: Annotated[
        Path | None, typer.Option(help="File to write to (default: standard output).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, help="Machines (default: what resources.concurrent_trials take)."),
    ] = None,
    gpus_per_node: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="GPUs of a machine (default: what the workers use, at most 8, or none where Slurm "
            "says that it has none); 0: none.",
        ),
    ] = None,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="CPUs of a machine (default: what its workers use).")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="GIB", help="Memory of a machine (default: 32 per GPU, or 4 per CPU)."
        ),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(
            help="The kind of GPU, as the cluster names it; aws, gcp: or as Ray does (default: "
            "resources.accelerator_type there, else any)."
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="kuberay: container image; aws, gcp: machine image.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Kubernetes namespace.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other value that the file marks with # <-- KEY."
        ),
    ] = None,
) -> None:
    """Fill a cluster file from a study: its machines, its time, its name."""
    from study.basics.errors import UserError
    from study.basics.text_files import write_text
    from study.cli.files import study_file
    from study.cli.output import write_data, written_to
    from study.launch import render_cluster_file

    if output is not None and output.exists() and not force:
        raise UserError(f"{output} exists. Give another name, or --force to replace it.")
    given = assigned(settings or [], "--set", "KEY=VALUE", "partition=gpu")
    chosen = {key.strip(): value.strip() for key, value in given.items()} | {
        key: value for key, value in (("image", image), ("namespace", namespace)) if value
    }
    rendered = render_cluster_file(
        target,
        study_file(study),
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        memory_gib=memory,
        accelerator=accelerator,
        settings=chosen,
        file_name=None if output is None else str(output),
    )
    if output is None:
        write_data(rendered.text)
    else:
        with written_to(output):
            write_text(output, rendered.text)
        typer.echo(f"Wrote {output}.", err=True)
    for line in _notes(rendered):
        typer.echo(line, err=True)


def _notes(rendered: Rendered) -> list[str]:
    """What was asked for, and what is left to do; for standard error."""
    from study.basics.text_format import counted

    shape = rendered.shape
    gpus = f", {counted(shape.gpus_per_node, 'GPU')}" if shape.gpus_per_node else ""
    notes = [
        f"{counted(shape.nodes, 'node')} of {counted(shape.cpus_per_node, 'CPU')}{gpus}: "
        f"{counted(shape.trials, 'trial')} at once."
    ]
    if rendered.left:
        keys = dict[str, int]()
        for line, key in rendered.left:
            keys.setdefault(key, line)
        listed = ", ".join(f"{key} (line {line})" for key, line in keys.items())
        notes.append(f"Still the example's, edit or give with --set: {listed}.")
    if rendered.accelerator_type and shape.gpus_per_node:
        notes.append(
            f"The study trains on {rendered.accelerator_type} alone: give --accelerator this "
            "cluster's own name of it, or --set machine=TYPE."
        )
    if rendered.paths:
        notes.append("Every node must see:")
        notes += [f"  {path}" for path in rendered.paths]
    return notes
