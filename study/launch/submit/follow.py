"""Prints what a job says as it says it, and survives that the cluster is out of reach."""

from __future__ import annotations

import time
from collections.abc import Callable

from study.basics.errors import StudyError
from study.basics.text_format import duration
from study.launch.submit.connection import Dashboard, LostConnectionError
from study.launch.submit.jobs import Job, find_job, log_of

_POLL_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
GIVE_UP_SECONDS = 30 * 60.0
"""Without an answer for so long, following ends; the job may well go on."""


def follow(
    dashboard: Dashboard,
    job: Job,
    out: Callable[[str], None],
    note: Callable[[str], None],
    give_up_seconds: float = GIVE_UP_SECONDS,
) -> Job:
    """Print a job's log until it ends.

    The log is asked for as a whole and printed from where it was left, so that nothing is lost or
    printed twice however often the connection breaks; a study prints a line per trial.

    Args:
        out: takes the log, piece by piece.
        note: takes a line about the connection and the wait.

    Returns:
        The job as it ended.

    Raises:
        StudyError: no answer for too long, or the cluster has forgotten the job.
    """
    printed, waiting = 0, False
    lost_at: float | None = None
    while True:
        began = time.monotonic()
        try:
            job = find_job(dashboard, job.job_id)
            log = log_of(dashboard, job)
        except LostConnectionError as error:
            if lost_at is None:
                lost_at = began
                note(f"The connection is lost ({error}); trying again. The job goes on.")
            passed = time.monotonic() - lost_at
            if passed > give_up_seconds:
                raise StudyError(
                    f"{dashboard.url} has not answered for {duration(passed)}. The job may go on; "
                    f"`study logs {job.job_id} --address {dashboard.url} --follow` follows it "
                    "again."
                ) from error
            time.sleep(min(_LONGEST_PAUSE_SECONDS, _POLL_SECONDS + passed / 4))
            continue
        if lost_at is not None:
            note("Connected again.")
            lost_at = None
        if job.state == "PENDING" and not waiting:
            waiting = True
            note("Waiting for the job to start. The first time, its requirements are installed.")
        if len(log) > printed:
            out(log[printed:])
            printed = len(log)
        if job.has_ended:
            return job
        # A long log over a slow line is asked for less often.
        time.sleep(max(_POLL_SECONDS, 5 * (time.monotonic() - began)))
