"""A study whose results are in a bucket: run here, killed, continued there, read anywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from study.basics.remote import RemoteFolder
from study.protocol.records import TrialState
from study.store.published import read_results
from tests.helpers.commands import Command
from tests.helpers.object_store import BUCKET, s3_environment, s3_server
from tests.helpers.real_studies import make_folder, write_study

URL = f"s3://{BUCKET}/studies/small"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Mapping[str, str]]:
    """The environment of every machine in this story."""
    with s3_server() as port:
        saved = dict(os.environ)
        os.environ.update(s3_environment(port))
        yield s3_environment(port)
        os.environ.clear()
        os.environ.update(saved)


def on_machine(name: str, folder: Path, *arguments: str) -> Command:
    """A command on a machine that has its own working folder."""
    environment = os.environ | {"STUDY_CACHE": str(folder / f"machine-{name}")}
    return Command(*arguments, cwd=folder, environment=environment)


@pytest.mark.cluster
def test_a_study_in_a_bucket_moves_from_machine_to_machine(
    cloud: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_folder(tmp_path_factory, "published")
    write_study(folder, storage={"results": URL})
    first = on_machine("one", folder, "run")
    first.wait_for("[  2/6]")
    # While it runs nobody else may run it. It stands still meanwhile: it is a short study.
    os.kill(first.pid, signal.SIGSTOP)
    second = on_machine("two", folder, "run")
    assert second.wait(120) == 2, second.output
    assert f"The study at {URL} is already running" in second.output
    os.kill(first.pid, signal.SIGINT)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(300) == 130, first.output
    assert "`study run study.yaml` continues" in " ".join(first.output.split())

    second = on_machine("two", folder, "run")
    assert second.wait(600) == 0, second.output
    assert "[  1/6]" not in second.output, "what the first machine finished is on record"
    assert f"{URL}/report/report.html" in second.output

    results = read_results(URL)
    assert [r.state for r in results.trials] == [TrialState.COMPLETE] * 6
    names = RemoteFolder(URL).names()
    assert {"report/report.html", "study.db", "results.json.gz", "logs/study.log"} <= set(names)
    assert any(name.startswith("logs/lift-") for name in names)
    assert not [n for n in names if n.startswith(("checkpoints/", "driver.json"))]

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for command in (("report", URL), ("status", URL), ("show", "lift-n24-r0-s0", URL)):
        done = on_machine("three", elsewhere, *command)
        assert done.wait(120) == 0, done.output
        assert "Traceback" not in done.output
    assert (elsewhere / "small-report" / "report.html").is_file()
    assert f"Last lines of {URL}/logs/lift-n24-r0-s0.log" in done.output


def test_a_bucket_that_is_not_there_stops_a_study_before_it_starts(
    cloud: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_folder(tmp_path_factory, "nowhere")
    write_study(folder, storage={"results": "s3://nobody-has-this/small"})
    process = on_machine("one", folder, "run")
    assert process.wait(120) == 2, process.output
    assert "s3://nobody-has-this/small cannot be" in process.output
    assert "Traceback" not in process.output
