"""A study submitted to a real Ray head, from another folder, over a connection that breaks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study import open_study
from study.basics.errors import StudyError
from study.protocol.records import TrialState
from tests.helpers.commands import Command
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.ray_head import RayHead
from tests.helpers.real_studies import write_study
from tests.launch.submit.wire import Wire

pytestmark = pytest.mark.ray


@dataclass
class Place:
    """A head, a folder with a study that knows nothing of it, and another folder to work in."""

    head: RayHead
    project: Path
    elsewhere: Path
    results: Path

    def start(self, *arguments: str, url: str | None = None, token: str = "") -> Command:
        own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        own |= {"COLUMNS": "200", "RAY_AUTH_TOKEN": token or self.head.token_file.read_text()}
        return Command(
            *arguments, "--address", url or self.head.url,
            cwd=self.elsewhere, environment=own, one_stream=False,
        )  # fmt: skip

    def run(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        return self.start(*arguments, token=token).completed(400)

    def submit(self, *more: str) -> subprocess.CompletedProcess[str]:
        file = self.project / "study.yaml"
        return self.run("submit", str(file), "--results", str(self.results), "--no-pip", *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Place:
    project = tmp_path_factory.mktemp("project")
    tiny_model_folder(project)
    write_jsonl(project / "mine.jsonl", task_rows(120))
    write(project)
    elsewhere, results = tmp_path_factory.mktemp("laptop"), tmp_path_factory.mktemp("shared")
    return Place(ray_head, project, elsewhere, results / "small")


def write(project: Path, **changes: Any) -> None:
    resources = {"workers_per_trial": 1, "gpus_per_worker": 0}
    write_study(project, **{"storage": {}, "resources": resources} | changes)


def job_in(text: str) -> str:
    found = re.search(r"\bsmall-[0-9a-f]{8}-\d+\b", text)
    assert found, text
    return found[0]


@pytest.fixture(scope="module")
def followed(place: Place) -> tuple[str, str, int]:
    """Standard output, standard error and exit code of `study submit --follow`, whose connection
    was cut for a while after the first trial."""
    with Wire(place.head.port) as wire:
        command = place.start(
            "submit", str(place.project), "--results", str(place.results), "--no-pip", "--follow",
            url=wire.url,
        )  # fmt: skip
        command.wait_for("[  1/6]")
        wire.cut()
        threading.Thread(target=wire.mend_after_use, daemon=True).start()
        done = command.completed(400)
        assert wire.refused
    return done.stdout, done.stderr, done.returncode


def test_a_submitted_study_runs_to_its_report(place: Place, followed: tuple[str, str, int]) -> None:
    output, errors, code = followed
    assert code == 0, output + errors
    assert "takes 6 files" in output and f"results in {place.results}" in output
    assert [r.state for r in open_study(place.results).results().trials] == (
        [TrialState.COMPLETE] * 6
    )
    assert (place.results / "report" / "report.html").is_file()
    assert list(place.elsewhere.iterdir()) == []


def test_a_cut_connection_loses_and_repeats_no_line(followed: tuple[str, str, int]) -> None:
    output, errors, _ = followed
    told = [line for line in output.splitlines() if re.match(r"\[ +\d/6\]", line)]
    assert [line[:7] for line in told] == [f"[  {i}/6]" for i in range(1, 7)]
    assert errors.count("The connection is lost") == 1 and "Connected again" in errors
    assert "succeeded after" in errors


def test_the_job_is_found_by_its_id_and_by_its_study(
    place: Place, followed: tuple[str, str, int]
) -> None:
    job = job_in(followed[0])
    for named in (job, str(place.project / "study.yaml")):
        status = place.run("status", named)
        assert status.returncode == 0, status.stderr
        assert job in status.stdout and "succeeded after" in status.stdout
    logs = place.run("logs", job)
    assert logs.stdout.strip() and logs.stdout.strip() in followed[0]
    stopped = place.run("stop", job)
    assert stopped.returncode == 2 and "already ended" in stopped.stderr


def test_submitting_again_continues_the_study(place: Place, followed: tuple[str, str, int]) -> None:
    again = place.submit("--follow")
    assert again.returncode == 0, again.stderr
    assert job_in(again.stdout) == job_in(followed[0])[:-1] + "2"
    assert "Every trial of this study is already on record" in again.stdout


@pytest.mark.parametrize("token", ["wrong", "0" * 64])
def test_a_wrong_token_submits_nothing(
    place: Place, followed: tuple[str, str, int], token: str
) -> None:
    file = str(place.project / "study.yaml")
    done = place.run("submit", file, "--results", str(place.results), token=token)
    assert done.returncode == 2
    assert "refuses the token from RAY_AUTH_TOKEN" in done.stderr
    assert token not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_stopped_job_pauses_its_trials_and_is_continued(place: Place) -> None:
    place.results = place.results.with_name("long")
    write(
        place.project,
        training={"steps": 3000, "global_batch_size": 8, "sequence_length": 48,
                  "evaluations": 200, "checkpoint_share": 1.0},
    )  # fmt: skip
    job = job_in(place.submit().stdout)
    until(lambda: any(r.measurements for r in trials(place)), place, job)

    again = place.submit()
    assert again.returncode == 0 and "runs this study already" in again.stdout
    assert job_in(again.stdout) == job

    stopped = place.run("stop", job)
    assert stopped.returncode == 0 and "write checkpoints" in stopped.stdout
    followed = place.run("logs", job, "--follow")
    assert followed.returncode == 1 and "stopped after" in followed.stderr
    assert "trials write checkpoints" in followed.stdout
    assert "What has finished is on record" in followed.stdout
    paused = trials(place)
    assert not any(r.state is TrialState.FAIL for r in paused)
    assert list((place.results / "checkpoints").iterdir())

    reached = max(r.measurements[-1].step for r in paused if r.measurements)
    continued = job_in(place.submit().stdout)
    until(
        lambda: any(r.measurements and r.measurements[-1].step > reached for r in trials(place)),
        place, continued,
    )  # fmt: skip
    assert place.run("stop", continued).returncode == 0
    place.run("logs", continued, "--follow")


def test_what_a_study_returns_is_what_following_returns(place: Place) -> None:
    place.results = place.results.with_name("broken")
    write(place.project, data={"train": "/nowhere/train.jsonl", "text": "text"})
    done = place.submit("--follow")
    assert "Expected on every node" in done.stdout and "/nowhere/train.jsonl" in done.stdout
    assert done.returncode == 2 and "no file matches /nowhere/train.jsonl" in done.stdout


def test_ctrl_c_ends_following_and_not_the_job(place: Place) -> None:
    place.results = place.results.with_name("left")
    write(place.project, training={"steps": 3000, "global_batch_size": 8, "sequence_length": 48})
    command = place.start(
        "submit", str(place.project), "--results", str(place.results), "--no-pip", "--follow"
    )
    command.wait_for("Preparing")
    job = job_in(command.output)
    try:
        command.send(signal.SIGINT)
        done = command.completed(60)
        assert done.returncode == 130 and "The job goes on" in done.stderr and job in done.stderr
        assert "running for" in place.run("status", job).stdout
    finally:  # other tests need the cluster
        stopped = place.run("stop", job)
        place.run("logs", job, "--follow")
    assert stopped.returncode == 0


def trials(place: Place) -> Any:
    try:
        return open_study(place.results).results().trials
    except StudyError:  # it has yet to make its folder, its database, or the tables in it
        return ()


def until(holds: Any, place: Place, job: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, place.run("status", job).stdout
        time.sleep(0.5)
