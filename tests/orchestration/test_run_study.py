"""Studies on real Ray, Ray Train and DeepSpeed with two workers, as a new user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from study import open_study
from study.plan import ModelFacts, trial_steps
from study.records import Stage, TrialState
from tests.data import labelled_rows, task_rows, write_jsonl
from tests.models import BLOCKS, tiny_model_folder

pytestmark = pytest.mark.ray


def write_study(folder: Path, **changes: Any) -> Path:
    """A small comparison on a tiny model: 2 arms x 1 size x (2 search + 1 confirm)."""
    config: dict[str, Any] = {
        "name": "small",
        "model": {"path": "./tiny-llama-0"},
        "data": {"train": "mine.jsonl", "prompt": "{question}", "response": "{answer}",
                 "retention_size": 10},
        "dataset_sizes": [24],
        "arms": {"full": {}, "lift": {"group_size": 2}},
        "search": {
            "space": {"shared": {
                "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
                "warmup_ratio": 0.1,
                "max_grad_norm": 1.0,
            }},
            "trials": 2,
            "replicates": 1,
        },
        "confirm": {"seeds": 1},
        "training": {"steps": 8, "global_batch_size": 8, "sequence_length": 48,
                     "evaluations": 2},
        "resources": {"workers_per_trial": 2, "gpus_per_worker": 0},
        "storage": {"results": "results"},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "study", "run", path.name],
        cwd=path.parent,
        env=os.environ | {"COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(path: Path) -> str:
    process = start(path)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def make_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    folder = tmp_path_factory.mktemp(name)
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    return folder


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished comparison, started once, killed while its third trial ran, and continued."""
    path = write_study(make_folder(tmp_path_factory, "comparison"))
    process = start(path)
    wait_for_line(process, "[  2/6]")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return path, run(path)


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
    output = run(path)
    assert "already on record" in output and "Starting Ray" not in output
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


def test_a_pruned_classification_study_of_one_arm(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("classification")
    tiny_model_folder(folder, "bert")
    write_jsonl(folder / "mine.jsonl", labelled_rows(120))
    path = write_study(
        folder,
        name="pruned",
        model={"path": "./tiny-bert-0"},
        task="sequence-classification",
        data={"train": "mine.jsonl", "text": "text", "label": "kind"},
        arms=["full"],
        search={
            # The second point in the plan's order meets a rung that only the best half passes.
            "space": {"shared": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
                                 "warmup_ratio": 0.0, "max_grad_norm": 1.0}},
            "trials": 4, "replicates": 1, "pruner": "asha",
        },
        confirm={"seeds": 0},
        training={"steps": 12, "global_batch_size": 8, "sequence_length": 32, "evaluations": 4},
    )  # fmt: skip
    output = run(path)
    results = open_study(path).results()
    states = [r.state for r in results.trials]
    assert TrialState.PRUNED in states and TrialState.COMPLETE in states
    for record in results.trials:
        if record.state is TrialState.PRUNED:
            assert len(record.measurements) < 4
            assert record.outcome is not None and "asha" in record.outcome.reason
        assert {"accuracy", "macro_f1"} == record.measurements[-1].validation_metrics.keys()
    assert results.data is not None and results.data.label_names == ("apple", "fig", "pear")
    assert "validation" in output


def test_ctrl_c_before_any_trial_stops_cleanly_and_says_how_to_continue(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = write_study(make_folder(tmp_path_factory, "interrupted"), name="interrupted")
    process = start(path)
    wait_for_line(process, "Measuring the base model")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "study run" in output and "Traceback" not in output


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            return
    pytest.fail("".join(lines))


def write_long_study(folder: Path, **changes: Any) -> Path:
    """Two trials of one arm that take long enough to be disturbed."""
    settings = {"steps": 1200, "global_batch_size": 8, "sequence_length": 48, "evaluations": 3}
    return write_study(
        folder, name="long", arms=["full"], confirm={"seeds": 0}, training=settings, **changes
    )


def numbers(path: Path) -> list[list[float]]:
    return [[m.validation_loss for m in r.measurements] for r in open_study(path).results().trials]


def wait_for_training(process: subprocess.Popen[str], path: Path) -> int:
    """Process id of the first trial's rank 0, some steps after its start."""
    log = path.parent / "results" / "logs" / "full-n24-r0-s0.log"
    deadline = time.monotonic() + 300
    while not (log.is_file() and "steps 1 to" in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    return int(log.read_text().split("process ")[1].split(",")[0])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    """Validation losses of the long study, with a Ray Train run per trial."""
    resources = {"workers_per_trial": 2, "gpus_per_worker": 0, "reuse_workers": False}
    path = write_long_study(make_folder(tmp_path_factory, "undisturbed"), resources=resources)
    run(path)
    trials = open_study(path).results().trials
    assert len({r.ray_train_job for r in trials}) == len(trials) == 2
    return numbers(path)


def test_a_trial_whose_worker_is_killed_goes_on_in_another_group_with_the_same_losses(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: list[list[float]]
) -> None:
    path = write_long_study(make_folder(tmp_path_factory, "killed"))
    process = start(path)
    os.kill(wait_for_training(process, path), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in output, output
    first, second = open_study(path).results().trials
    assert first.outcome is not None and "another worker group" in first.outcome.notes[0]
    assert second.outcome is not None and not second.outcome.notes
    assert first.ray_train_job == second.ray_train_job, "the new group serves both"
    assert numbers(path) == undisturbed


def test_a_study_stopped_with_ctrl_c_goes_on_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: list[list[float]]
) -> None:
    path = write_long_study(make_folder(tmp_path_factory, "paused"))
    process = start(path)
    wait_for_training(process, path)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "write checkpoints" in output and "study run" in output
    assert open_study(path).results().trials[0].state is TrialState.RUNNING
    run(path)
    log = (path.parent / "results" / "logs" / "full-n24-r0-s0.log").read_text()
    assert "going on after step" in log
    assert numbers(path) == undisturbed


def test_impossible_resources_are_refused_before_any_trial(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = write_study(
        make_folder(tmp_path_factory, "impossible"),
        name="impossible",
        resources={"workers_per_trial": 2, "cpus_per_worker": 1000, "gpus_per_worker": 0},
    )
    process = start(path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "resources" in output and "cpus_per_worker" in output and "Traceback" not in output


def test_two_drivers_cannot_run_one_study(comparison: tuple[Path, str]) -> None:
    from filelock import FileLock

    from study.paths import StudyPaths

    path, _ = comparison
    with FileLock(StudyPaths(path.parent / "results").lock):
        process = start(path)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "already running" in output


def test_specs_on_record_are_the_plans(comparison: tuple[Path, str]) -> None:
    store = open_study(comparison[0])
    plan = store.plan()
    assert plan is not None
    stored = [r.spec.to_dict() for r in store.results().trials if r.spec.stage is Stage.SEARCH]
    assert json.dumps(stored) == json.dumps([s.to_dict() for s in plan.search])
