"""A study on real Ray, Ray Train and DeepSpeed with two workers, as a new user runs it.

Killed in the middle and continued.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from study import open_study
from study.basics.paths import StudyPaths
from study.protocol.plan import ModelFacts, trial_steps
from study.protocol.records import Stage, TrialState
from tests.helpers.commands import TERMINAL, study
from tests.helpers.models import BLOCKS
from tests.helpers.real_studies import make_folder, write_study


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "study", "run", path.name],
        cwd=path.parent,
        env=os.environ | TERMINAL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study whose driver was killed while its third trial ran."""
    path = write_study(make_folder(tmp_path_factory, "comparison"))
    process = start(path)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "[  2/6]" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "".join(lines)
    return path


@pytest.fixture(scope="module")
def comparison(killed: Path) -> tuple[Path, str]:
    """The same study, continued to its end, and what that printed."""
    process = start(killed)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return killed, output


def test_a_killed_study_keeps_what_was_finished(killed: Path) -> None:
    states = [r.state for r in open_study(killed).results().trials]
    assert states.count(TrialState.COMPLETE) >= 2 and TrialState.FAIL not in states


def test_a_killed_study_does_not_go_on_with_other_data(killed: Path) -> None:
    data = killed.parent / "mine.jsonl"
    before = data.read_text()
    try:
        data.write_text(before.replace("What is 7 plus 7?", "What is 8 plus 6?"))  # as many rows
        refused = study("run", killed.name, cwd=killed.parent)
    finally:
        data.write_text(before)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "have changed since its first trials" in " ".join(refused.stderr.split())
    assert "Starting Ray" not in refused.stdout


def test_a_killed_study_continues_and_finishes(comparison: tuple[Path, str]) -> None:
    path, output = comparison
    results = open_study(path).results()
    assert [r.state for r in results.trials] == [TrialState.COMPLETE] * 6
    assert "[  3/6]" in output and "[  1/6]" not in output


def test_the_run_ends_with_findings_report_and_next_steps(comparison: tuple[Path, str]) -> None:
    _, output = comparison
    assert "For 24 training examples" in output
    assert "report.html" in output
    assert "study best" in output
    assert "Traceback" not in output and "WARNING" not in output


def test_records_hold_what_a_reader_may_ask(comparison: tuple[Path, str]) -> None:
    results = open_study(comparison[0]).results()
    assert results.base is not None and results.data is not None
    assert results.cost_ratio is not None and results.model_parameters is not None
    for record in results.trials:
        outcome = record.outcome
        assert outcome is not None and outcome.status == "finished"
        assert [m.step for m in record.measurements] == list(record.spec.evaluation_steps)
        assert sum(p.steps for p in outcome.phases) == record.spec.steps
        assert record.ray_train_job is not None
        assert record.started is not None and record.finished is not None
        assert {"torch", "deepspeed", "ray"} <= outcome.versions.keys()
        assert outcome.deepspeed_config["zero_optimization"]["stage"] == 2
        confirm = record.spec.stage is Stage.CONFIRM
        assert (outcome.test_loss is not None) == confirm
        assert (len(outcome.test_losses) == results.data.test) == confirm


def test_lift_gets_the_steps_that_the_probe_measured(comparison: tuple[Path, str]) -> None:
    results = open_study(comparison[0]).results()
    assert results.probe is not None
    steps = {r.spec.arm: r.spec.steps for r in results.trials}
    assert steps["full"] == 8
    facts = ModelFacts(BLOCKS, results.probe)
    assert steps["lift"] == trial_steps(results.config, facts, "lift", 24, {})


def test_a_second_run_over_a_finished_study_trains_nothing(comparison: tuple[Path, str]) -> None:
    path, _ = comparison
    before = open_study(path).results().trials
    again = study("run", path.name, cwd=path.parent)
    assert again.returncode == 0, again.stderr
    assert "already on record" in again.stdout and "Starting Ray" not in again.stdout
    assert open_study(path).results().trials == before


def test_every_trial_left_a_log(comparison: tuple[Path, str]) -> None:
    logs = comparison[0].parent / "results" / "logs"
    for trial in ("full-n24-r0-s0", "lift-n24-r0-c0", "baseline"):
        assert "process" in (logs / f"{trial}.log").read_text()


def test_no_ray_process_survives(comparison: tuple[Path, str]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        session = str(comparison[0].parent)
        if not [x for x in listed.stdout.splitlines() if session in x and "ray" in x]:
            return
        time.sleep(0.5)
    pytest.fail(listed.stdout)


def test_two_drivers_cannot_run_one_study(comparison: tuple[Path, str]) -> None:
    path, _ = comparison
    with FileLock(StudyPaths(path.parent / "results").lock):
        other = study("run", path.name, cwd=path.parent)
    assert other.returncode == 2
    assert "already running" in other.stderr


def test_specs_on_record_are_the_plans(comparison: tuple[Path, str]) -> None:
    store = open_study(comparison[0])
    plan = store.plan()
    assert plan is not None
    stored = [r.spec.to_dict() for r in store.results().trials if r.spec.stage is Stage.SEARCH]
    assert json.dumps(stored) == json.dumps([s.to_dict() for s in plan.search])
