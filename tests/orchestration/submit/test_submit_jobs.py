"""A study submitted to a real Ray head, from another folder, over a connection that breaks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study import open_study
from study.errors import StudyError
from study.records import TrialState
from tests.data import task_rows, write_jsonl
from tests.models import tiny_model_folder
from tests.orchestration.submit.head import RayHead, Wire
from tests.orchestration.test_run_study import write_study

pytestmark = pytest.mark.ray


@dataclass
class Place:
    """A head, a folder with a study that knows nothing of it, and another folder to work in."""

    head: RayHead
    project: Path
    elsewhere: Path
    results: Path

    def study(self, *arguments: str, url: str | None = None, token: str = "") -> list[str]:
        address = ["--address", url or self.head.url]
        return [sys.executable, "-m", "study", *arguments, *address]

    def environment(self, token: str = "") -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return own | {"COLUMNS": "200", "RAY_AUTH_TOKEN": token or self.head.token_file.read_text()}

    def run(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.study(*arguments), cwd=self.elsewhere, env=self.environment(token),
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip

    def submit(self, *more: str) -> subprocess.CompletedProcess[str]:
        file = self.project / "study.yaml"
        return self.run("submit", str(file), "--results", str(self.results), "--no-pip", *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    project = tmp_path_factory.mktemp("project")
    tiny_model_folder(project)
    write_jsonl(project / "mine.jsonl", task_rows(120))
    write(project)
    elsewhere, results = tmp_path_factory.mktemp("laptop"), tmp_path_factory.mktemp("shared")
    with RayHead() as head:
        yield Place(head, project, elsewhere, results / "small")


def write(project: Path, **changes: Any) -> None:
    resources = {"workers_per_trial": 1, "gpus_per_worker": 0}
    write_study(project, **{"storage": {}, "resources": resources} | changes)


def job_in(text: str) -> str:
    found = re.search(r"\bsmall-[0-9a-f]{4}-\d+\b", text)
    assert found, text
    return found[0]


@pytest.fixture(scope="module")
def followed(place: Place) -> tuple[str, str, int]:
    """Standard output, standard error and exit code of `study submit --follow`, whose connection
    was cut for a while after the first trial."""
    arguments = ["submit", str(place.project), "--results", str(place.results), "--no-pip"]
    with Wire(place.head.port) as wire:
        process = subprocess.Popen(
            place.study(*arguments, "--follow", url=wire.url),
            cwd=place.elsewhere, env=place.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        errors = list[str]()
        reader = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)
        reader.start()
        lines = list[str]()
        for line in process.stdout:
            lines.append(line)
            if "[  1/6]" in line:
                wire.cut()
                threading.Thread(target=wire.mend_after_use, daemon=True).start()
        code = process.wait(timeout=60)
        reader.join(timeout=10)
        assert wire.refused
    return "".join(lines), "".join(errors), code


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


@pytest.mark.cluster
def test_ctrl_c_ends_following_and_not_the_job(place: Place) -> None:
    place.results = place.results.with_name("left")
    write(place.project, training={"steps": 3000, "global_batch_size": 8, "sequence_length": 48})
    process = subprocess.Popen(
        place.study("submit", str(place.project), "--results", str(place.results), "--no-pip",
                    "--follow"),
        cwd=place.elsewhere, env=place.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    job = next(job_in(line) for line in process.stdout if line.startswith("Submitted"))
    next(line for line in process.stdout if "Preparing" in line)
    process.send_signal(2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "The job goes on" in errors and job in errors
    assert "running for" in place.run("status", job).stdout
    assert place.run("stop", job).returncode == 0
    place.run("logs", job, "--follow")


def trials(place: Place) -> Any:
    try:
        return open_study(place.results).results().trials
    except StudyError:  # it has yet to make its folder, its database, or the tables in it
        return ()


def until(holds: Any, place: Place, job: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        status = place.run("status", job).stdout if time.monotonic() > end else ""
        assert time.monotonic() < end, status
        time.sleep(0.5)
