"""Studies as jobs of a cluster: sent, found again, stopped."""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from study.basics.errors import StudyError, UserError
from study.config.tracking_needs import check_trackers
from study.launch.submit.connection import Dashboard, NoSuchJobError
from study.launch.submit.environment import job_environment
from study.launch.submit.inputs import PackedStudy
from study.launch.submit.package import stage_package, zip_study
from study.launch.submit.requirements import PACKAGE, pinned_requirements

_STUDY, _RESULTS, _VERSION = "study", "study_results", "study_version"
_START = "exec python3 -m study.launch.submit.start"
_ENDED = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Job:
    """A study on a cluster, as the cluster tells of it.

    Attributes:
        job_id: Ray's submission id.
        study: name of the study.
        results: its results, a path on the cluster or a URL.
        state: ``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``.
        message: what the cluster says about that state.
        setup_failed: the nodes could not install its requirements or unpack its files.
        exit_code: of `study run`; None while it runs, or if it never started.
        started, ended: seconds since the epoch.
    """

    job_id: str
    study: str
    results: str
    state: str
    message: str
    setup_failed: bool
    exit_code: int | None
    started: float
    ended: float | None

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self.ended or time.time()) - self.started


def study_jobs(dashboard: Dashboard) -> list[Job]:
    """The jobs that `submit_study` made, the newest first."""
    found = (_job(details) for details in dashboard.ask("/api/jobs/"))
    return sorted((job for job in found if job), key=lambda job: job.started, reverse=True)


def find_job(dashboard: Dashboard, job_id: str) -> Job:
    """The job of that id.

    Raises:
        UserError: the cluster does not know it, or it is no study.
    """
    try:
        job = _job(dashboard.ask(f"/api/jobs/{quote(job_id, safe='')}"))
    except NoSuchJobError:
        job = None
    if job is None:
        raise UserError(f"{dashboard.url} knows no study job {job_id}. {_known(dashboard)}")
    return job


def newest_job(dashboard: Dashboard, study: str) -> Job:
    """The job that was last submitted for a study of that name.

    Raises:
        UserError: there is none.
    """
    for job in study_jobs(dashboard):
        if job.study == study:
            return job
    raise UserError(f"{dashboard.url} has no job of study {study!r}. {_known(dashboard)}")


def running_job(dashboard: Dashboard, packed: PackedStudy) -> Job | None:
    """The job that writes to this study's results now."""
    of_study = (job for job in study_jobs(dashboard) if _is_of(job, packed))
    return next((job for job in of_study if not job.has_ended), None)


def submit_study(
    dashboard: Dashboard,
    packed: PackedStudy,
    *,
    install: bool = True,
    variables: Mapping[str, str] | None = None,
) -> Job:
    """Send a study with this package, and start it.

    Args:
        install: let the nodes install the package's requirements; False: they have them.
        variables: environment variables of the job and its workers.

    Raises:
        StudyError: the cluster takes it not; nothing runs.
    """
    if install:
        check_trackers(packed.trackers)
    earlier = [job.job_id for job in study_jobs(dashboard) if _is_of(job, packed)]
    last = max((int(job_id.rpartition("-")[2]) for job_id in earlier), default=0)
    with tempfile.TemporaryDirectory(prefix="study-submit-") as scratch:
        folder = Path(scratch)
        archive = folder / "study.zip"
        zip_study(packed, archive)
        environment = job_environment(
            archive,
            stage_package(folder),
            pinned_requirements(packed.database, packed.trackers) if install else None,
            variables or {},
        )
        job_id = _new_id(packed, last + 1)
        try:
            dashboard.submit_job(
                entrypoint=f"{_START} {shlex.quote(packed.file_name)}",
                runtime_env=environment,
                metadata={
                    _STUDY: packed.name,
                    _RESULTS: packed.results,
                    _VERSION: version(PACKAGE),
                },
                submission_id=job_id,
            )
        except StudyError as error:
            if "already exists" in str(error):
                raise UserError(
                    f"Somebody has submitted this study at the same moment: {job_id}. Follow that "
                    f"job with `study logs {job_id} --address {dashboard.url} --follow`."
                ) from error
            raise
    return find_job(dashboard, job_id)


def stop(dashboard: Dashboard, job: Job) -> None:
    """Ask a running job to stop; its trials write checkpoints first.

    Raises:
        UserError: it has ended.
    """
    if job.has_ended or not dashboard.stop_job(job.job_id):
        raise UserError(f"{job.job_id} has already ended ({job.state}): nothing is left to stop.")


def log_of(dashboard: Dashboard, job: Job) -> str:
    """Everything the job has printed so far."""
    return str(dashboard.ask(f"/api/jobs/{job.job_id}/logs")["logs"])


def _known(dashboard: Dashboard) -> str:
    newest = ", ".join(job.job_id for job in study_jobs(dashboard)[:5])
    return f"Its newest: {newest}." if newest else "It has none; `study submit` makes one."


def _is_of(job: Job, packed: PackedStudy) -> bool:
    return (job.study, job.results) == (packed.name, packed.results)


def _new_id(packed: PackedStudy, number: int) -> str:
    """Counted up, not drawn: of two people who submit at the same moment, one gets it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", packed.name).strip("-.") or "study"
    place = hashlib.sha256(f"{packed.name}\0{packed.results}".encode()).hexdigest()[:8]
    return f"{name[:40]}-{place}-{number}"


def _job(details: Mapping[str, Any]) -> Job | None:
    metadata = details.get("metadata") or {}
    if details.get("type") != "SUBMISSION" or _STUDY not in metadata:
        return None
    ended = details.get("end_time")
    return Job(
        job_id=str(details["submission_id"]),
        study=metadata[_STUDY],
        results=metadata.get(_RESULTS, ""),
        state=str(details["status"]),
        message=details.get("message") or "",
        setup_failed=details.get("error_type") == "RUNTIME_ENV_SETUP_FAILURE",
        exit_code=details.get("driver_exit_code"),
        started=(details.get("start_time") or 0) / 1000,
        ended=ended / 1000 if ended else None,
    )
