"""How `study check` looks and ends; what it checks is tested beside the checks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from study.cli.app import app
from study.cli.check import CheckView
from study.orchestration.preflight import study_check
from study.orchestration.preflight.base import CheckResult, Status
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder

PASSED = CheckResult("storage", Status.PASS, "/somewhere/results can be written")
WARNED = CheckResult("token", Status.WARN, "Ray asks for no token.", "Set RAY_AUTH_MODE=token.")
SKIPPED = CheckResult("accelerators", Status.SKIP, "needs the check `resources`")
FAILED = CheckResult(
    "node database",
    Status.FAIL,
    "node-17.cluster.example.org does not see /home/someone/a/long/path/that/goes/on/results/"
    "my-study/study.db.",
    "Set storage.database to a PostgreSQL URL, or put the SQLite file on storage that all nodes "
    "share.",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model_folder(tmp_path)
    write_jsonl(tmp_path / "mine.jsonl", task_rows(60))
    config = {
        "name": "mine",
        "model": {"path": "./tiny-llama-0"},
        "data": {"train": "mine.jsonl", "prompt": "{question}", "response": "{answer}"},
        "dataset_sizes": 16,
        "arms": ["full", "lift"],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *results: CheckResult, option: str = ""
) -> tuple[int, str]:
    """Exit code and output of `study check` had its checks found `results`."""

    def found(config: Any, observer: Any, *, probe: bool) -> tuple[CheckResult, ...]:
        assert probe == (option == "--probe")
        observer.working("Asking every node")
        for result in results:
            observer.result(result)
        os.write(1, b"what a library prints\n")
        return results

    monkeypatch.setattr(study_check, "check_study", found)
    monkeypatch.setenv("COLUMNS", "80")
    output = folder / "output.txt"
    kept = os.dup(1)
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
        arguments = ["check", str(folder / "study.yaml"), *([option] if option else [])]
        done = CliRunner().invoke(app, arguments)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, output.read_text() + done.stdout


def test_the_exit_code_is_0_when_nothing_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = check(folder, monkeypatch, PASSED, WARNED, SKIPPED)
    assert code == 0
    assert "The study can run, 1 warning. Start it with: study run" in output


def test_the_exit_code_is_2_when_something_failed_and_the_last_line_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = check(folder, monkeypatch, PASSED, FAILED, WARNED, option="--probe")
    assert code == 2
    assert "The study cannot run: node database failed, 1 warning." in output


def test_libraries_print_to_the_log_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = check(folder, monkeypatch, PASSED)
    assert "what a library prints" not in output
    log = folder / "results" / "mine" / "logs" / "check.log"
    assert "what a library prints" in log.read_text()


def test_a_results_folder_that_cannot_be_made_does_not_keep_the_checks_from_running(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((folder / "study.yaml").read_text())
    config["storage"] = {"results": "/proc/none"}
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    code, output = check(folder, monkeypatch, FAILED)
    assert code == 2 and "node database" in output


def test_every_line_fits_80_columns_and_has_its_remedy() -> None:
    text = io.StringIO()
    view = CheckView(Console(file=text, width=80, highlight=False, markup=False))
    with view:
        for result in (PASSED, WARNED, SKIPPED, FAILED):
            view.result(result)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "pass  storage        /somewhere/results can be written"
    assert lines[2] == " " * 21 + "fix: Set RAY_AUTH_MODE=token."
    told = " ".join(text.getvalue().split())
    assert "fail node database node-17.cluster.example.org does not see" in told
    assert FAILED.remedy in told
    assert not any(line.endswith(" ") for line in lines)


def test_a_faulty_study_file_is_told_before_anything_is_checked(folder: Path) -> None:
    config = yaml.safe_load((folder / "study.yaml").read_text())
    config["model"] = {"path": "./nowhere"}
    config["data"]["train"] = "missing.jsonl"
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "study", "check"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nowhere" in done.stderr and "missing.jsonl" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
