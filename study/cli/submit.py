"""`study submit`, and `status`, `logs` and `stop` of what was submitted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from study.basics.errors import UserError
from study.basics.text_format import byte_size, counted, duration
from study.basics.text_safety import without_colours
from study.cli.arguments import assigned
from study.cli.files import DEMO, DEMO_FOLDER, study_file
from study.cli.output import Console, print_facts

if TYPE_CHECKING:  # they import Ray
    from study.launch.submit.connection import Dashboard
    from study.launch.submit.inputs import PackedStudy
    from study.launch.submit.jobs import Job

_STATES = {
    "PENDING": "waiting to start",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}
_LOG_LINES = 10


def submit_and_print(
    study: str,
    address: str,
    *,
    results: str | None,
    shared: list[str],
    install: bool,
    variables: list[str],
    follow: bool,
) -> int:
    """Submit a study, or find the job that runs it already; say how to go on.

    Args:
        study: the STUDY argument.
        variables: ``NAME=VALUE``.

    Returns:
        The exit code: the job's with `follow`, else 0.
    """
    from study.launch.submit.connection import check_versions, connect
    from study.launch.submit.inputs import pack_study
    from study.launch.submit.jobs import running_job, submit_study

    path = study_file(study)
    environment = assigned(variables, "--env", "NAME=VALUE", "HF_HOME=/shared/hf")
    packed = pack_study(path, results, shared)
    dashboard = connect(address)
    check_versions(dashboard)
    job = running_job(dashboard, packed)
    if job is not None:
        typer.echo(f"{job.job_id} runs this study already: nothing was submitted.")
    else:
        for line in _notes(packed):
            typer.echo(line)
        if not dashboard.asks_for_token:
            typer.echo(
                "This cluster asks for no token: everyone who reaches it can run programs there. "
                "Start it with RAY_AUTH_MODE=token.",
                err=True,
            )
        job = submit_study(dashboard, packed, install=install, variables=environment)
        typer.echo(f"Submitted {job.job_id}; results in {job.results}")
    if follow:
        return _follow(dashboard, job)
    where = f"{job.job_id} --address {dashboard.url}"
    typer.echo(f"  study logs {where} --follow\n  study status {where}\n  study stop {where}")
    return 0


def print_job_status(named: str, address: str) -> None:
    """What the cluster knows of a job, and the last that it printed."""
    from study.launch.submit.connection import connect
    from study.launch.submit.jobs import log_of

    dashboard = connect(address)
    job = _named_job(dashboard, named)
    console = Console()
    print_facts(
        console,
        {"Job": job.job_id, "Study": job.study, "State": _state(job), "Results": job.results},
    )
    lines = without_colours(log_of(dashboard, job)).splitlines() or job.message.splitlines()
    for line in lines[-_LOG_LINES:]:
        console.print(line, soft_wrap=True)


def print_job_logs(named: str, address: str, *, follow: bool) -> int:
    """Print what a job has printed, and with `follow` what it will.

    Returns:
        The exit code: the job's with `follow`, else 0.
    """
    from study.launch.submit.connection import connect
    from study.launch.submit.jobs import log_of

    dashboard = connect(address)
    job = _named_job(dashboard, named)
    if follow:
        return _follow(dashboard, job)
    typer.echo(without_colours(log_of(dashboard, job)), nl=False)
    return 0


def stop_job(named: str, address: str) -> str:
    """Stop a job, and say what that means."""
    from study.launch.submit.connection import connect
    from study.launch.submit.jobs import stop

    dashboard = connect(address)
    job = _named_job(dashboard, named)
    stop(dashboard, job)
    return (
        f"{job.job_id} is stopping: its trials write checkpoints first. Submit the study again to "
        "continue it."
    )


def _notes(packed: PackedStudy) -> list[str]:
    """What travels and what does not."""
    files = "no files"
    if packed.inputs:
        files = f"{counted(len(packed.inputs), 'file')} ({byte_size(packed.size)})"
    notes = [f"The study takes {files} along."]
    if packed.on_cluster:
        notes.append("Expected on every node:")
        notes += [f"  {key} {path}" for key, path in packed.on_cluster]
    return notes


def _named_job(dashboard: Dashboard, named: str) -> Job:
    """The job of an id, or the newest one of a study file."""
    from study.basics.paths import is_yaml
    from study.basics.yaml_source import read_yaml
    from study.launch.submit.jobs import find_job, newest_job

    path = DEMO_FOLDER / "study.yaml" if named == DEMO else Path(named)
    path = path / "study.yaml" if path.is_dir() else path
    if not path.is_file():
        if is_yaml(path):
            raise UserError(f"No study file {path}. Name one, or a job's id.")
        return find_job(dashboard, named)
    data = read_yaml(path).data
    name = data.get("name") if isinstance(data, dict) else None
    if not isinstance(name, str):
        raise UserError(f"{path}: a study file has a `name`.")
    return newest_job(dashboard, name)


def _state(job: Job) -> str:
    code = f", exit code {job.exit_code}" if job.exit_code else ""
    after = "for" if job.state in ("PENDING", "RUNNING") else "after"
    return f"{_STATES.get(job.state, job.state)} {after} {duration(job.seconds)}{code}"


def _follow(dashboard: Dashboard, job: Job) -> int:
    """Print a job's log until it ends.

    Returns:
        0 if it succeeded, else what `study run` returned, or 1.
    """
    from study.launch.submit.follow import follow

    def out(text: str) -> None:
        sys.stdout.write(without_colours(text))
        sys.stdout.flush()

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    where = f"{job.job_id} --address {dashboard.url}"
    try:
        job = follow(dashboard, job, out, note)
    except KeyboardInterrupt:
        note(
            f"\nThe job goes on. Follow it again with `study logs {where} --follow`, stop it with "
            f"`study stop {where}`."
        )
        raise
    note(f"{job.job_id} {_state(job)}.")
    if job.state == "SUCCEEDED":
        return 0
    if job.setup_failed:
        note(
            "The cluster could not install the job's requirements or unpack its files; the reason "
            "is above. Its nodes must reach a package registry. Where they have the requirements "
            "already, submit with --no-pip."
        )
    elif job.exit_code is None and job.message:
        note(job.message)
    return job.exit_code or 1
