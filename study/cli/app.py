"""The verbs."""

from __future__ import annotations

import math
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from study.cli.arguments import Study
from study.cli.cluster import cluster_app
from study.cli.reuse_verbs import best, export, recommend, train

app = typer.Typer(
    name="study",
    help="Full fine-tuning or LIFT (layer-wise)? Run the experiment on Ray, read the report, "
    "reuse the best configuration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Start with **study run demo**, or with **study init** for your own model and data.",
)
app.add_typer(cluster_app, name="cluster")


Job = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job's id, or a study file: its newest job."),
]
Address = Annotated[
    str, typer.Option(metavar="URL", help="The cluster's dashboard, such as http://HEAD:8265.")
]
OptionalAddress = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A cluster's dashboard, such as http://HEAD:8265: for a job submitted there, by "
        "its id or its study file.",
    ),
]


def _debug(wanted: bool) -> None:
    from study.cli.failures import show_tracebacks

    show_tracebacks(wanted)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"study {installed_version('finetune-study')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", callback=_debug, is_eager=True, help="Print the traceback of an error."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.yaml"),
    template: Annotated[
        str,
        typer.Option(help="causal-lm, classification, gpu-cluster or demo."),
    ] = "causal-lm",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented study file to start from."""
    from study.cli.files import write_study_file

    write_study_file(path, template, force=force)
    typer.echo(f"Wrote {path}. Edit model.path, data.train and dataset_sizes, then:")
    typer.echo(f"  study plan {path}")


@app.command()
def schema(
    space: Annotated[
        bool, typer.Option("--space", help="Of a search space's file instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of a study file, for an editor."""
    from study.cli.output import write_data
    from study.config.schema import SPACE_FILE, STUDY_FILE

    write_data((SPACE_FILE if space else STUDY_FILE).read_text(encoding="utf-8"))


@app.command()
def plan(
    study: Study = "study.yaml",
    examples: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Training examples to print as the model sees them, its special tokens and what "
            "it is trained to say marked; 0: none.",
        ),
    ] = 2,
) -> None:
    """Check a study file, its data and its model; print what became of the rows and what a model
    sees of them, what would run, what that can detect and what it costs. Trains nothing."""
    from study.cli.files import study_file
    from study.cli.samples import read_examples
    from study.cli.views import print_plan
    from study.config.load import load_config
    from study.orchestration.prepare import prepare_known
    from study.store.opening import store_of

    config = load_config(study_file(study))
    store = store_of(config)
    growth = None if store is None else store.extension_to(config)
    prepared = prepare_known(config, store)
    results = None if store is None else store.results()
    print_plan(prepared, study, results, read_examples(prepared, examples))
    if growth is not None:
        typer.echo(f"{growth}. What is on record stays.")


@app.command()
def check(
    study: Study = "study.yaml",
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Take a real step of each arm too, and predict the study's hours."
        ),
    ] = False,
) -> None:
    """Say whether a study can run: data, model, memory, cluster, storage. Trains nothing."""
    from study.cli.check import check_and_print
    from study.cli.files import study_file
    from study.config.load import load_config

    if not check_and_print(load_config(study_file(study)), study, probe=probe):
        raise typer.Exit(2)


@app.command()
def run(study: Study = "study.yaml") -> None:
    """Run a study, or continue one: what is on record stays. Ends with a verdict and a report."""
    from study.cli.files import study_file
    from study.cli.run import run_and_report
    from study.config.load import load_config

    path = study_file(study)
    run_and_report(load_config(path), study)


@app.command(
    epilog="For example **study submit study.yaml --address http://HEAD:8265 --results "
    "s3://bucket/my-study --follow**. A cluster that asks for a token gets the one in "
    "RAY_AUTH_TOKEN, in the file RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token."
)
def submit(
    address: Address,
    study: Study = "study.yaml",
    results: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="A folder that every node sees, or a URL such as s3://bucket/study (default: "
            "storage.results).",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print what the job prints, until it ends.")
    ] = False,
    shared: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Is the same here and on every node: nothing below it is sent. May be given "
            "several times.",
        ),
    ] = None,
    no_pip: Annotated[
        bool,
        typer.Option("--no-pip", help="The nodes have this program's requirements installed."),
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An environment variable of the job and its workers; no credentials. May be given "
            "several times.",
        ),
    ] = None,
) -> None:
    """Send a study to a Ray cluster and run it there, or continue it. Model and data files and the
    records of earlier studies travel with it where they have at most 90 MiB together; larger ones
    must be on the cluster."""
    from study.cli.submit import submit_and_print

    code = submit_and_print(
        study,
        address,
        results=results,
        shared=shared or [],
        install=not no_pip,
        variables=env or [],
        follow=follow,
    )
    raise typer.Exit(code)


@app.command()
def status(study: Study = "study.yaml", address: OptionalAddress = None) -> None:
    """Print how far a study is; also while it runs."""
    if address is not None:
        from study.cli.submit import print_job_status

        print_job_status(study, address)
        return
    from study.cli.files import results_named
    from study.cli.status import print_status

    print_status(results_named(study))


@app.command()
def logs(
    address: Address,
    job: Job = "study.yaml",
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on printing until the job ends.")
    ] = False,
) -> None:
    """Print what a submitted job has printed."""
    from study.cli.submit import print_job_logs

    raise typer.Exit(print_job_logs(job, address, follow=follow))


@app.command()
def show(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="For example lift-n512-r0-s3.")],
    study: Study = "study.yaml",
    lines: Annotated[int, typer.Option(min=0, help="Lines of the trial's log to print.")] = 20,
) -> None:
    """Print one trial: configuration, curve, outcome, log."""
    from study.cli.files import results_named
    from study.cli.views import print_trial

    print_trial(results_named(study), trial, lines)


@app.command()
def stop(
    trial: Annotated[
        str | None,
        typer.Argument(
            metavar="TRIAL", help="For example lift-n512-r0-s3; with --address: a job's id."
        ),
    ] = None,
    study: Study = "study.yaml",
    address: OptionalAddress = None,
) -> None:
    """Stop a running trial, or skip a waiting one; it counts as failed and the study goes on. With
    --address, stop a submitted job: submitting its study again continues it."""
    if address is not None:
        from study.cli.submit import stop_job

        typer.echo(stop_job(trial or study, address))
        return
    from study.cli.files import driven_here
    from study.cli.stop import stop_trial

    if trial is None:
        raise typer.BadParameter("name a trial, or a job with --address.")
    typer.echo(stop_trial(driven_here(study), trial))


def _dataset_size(text: str) -> int:
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise typer.BadParameter(f"{text} is no number of training examples, such as 3000.")
    return size


def _memory_limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0.0 < limit < math.inf:
        raise typer.BadParameter(f"{text} is no memory in GiB, such as 80.")
    return limit


@app.command(
    epilog="For your own case: **study report --dataset-size 3000 --memory-limit 80**; "
    "for several: **--dataset-size 500 --dataset-size 5000**."
)
def report(
    study: Study = "study.yaml",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write to (default: report in the results folder)."),
    ] = None,
    dataset_size: Annotated[
        list[int] | None,
        typer.Option(
            parser=_dataset_size,
            metavar="N",
            help="Training examples you will fine-tune on; may be given several times "
            "(default: decision.dataset_size, else the largest size).",
        ),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            parser=_memory_limit,
            metavar="GIB",
            help="Memory of one device of yours; an arm that needs more is ruled out "
            "(default: decision.memory_limit_gib).",
        ),
    ] = None,
) -> None:
    """Print the verdict and write the report: HTML that opens offline, Markdown and JSON."""
    from study.cli.files import results_named
    from study.cli.run import report_and_print

    report_and_print(results_named(study), output, dataset_size or (), memory_limit)


app.command()(best)
app.command()(export)
app.command()(recommend)
app.command()(train)


@app.command()
def clean(
    study: Study = "study.yaml",
    everything: Annotated[
        bool, typer.Option("--all", help="The results too, not just what can be made again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what can be made again (tokenised data, prefix cache, Ray's files), after asking."""
    from study.cli.files import clean_study

    clean_study(study, everything=everything, yes=yes)
