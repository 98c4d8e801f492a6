"""Studies on a real cluster that are pruned, interrupted, or lose a worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from study import load_config, open_study
from study.basics.paths import StudyPaths
from study.protocol.records import TrialState
from study.training.data.prepare import prepare_data
from study.training.data.tokenised import use_data
from study.training.model.load import load_tokenizer
from tests.helpers.commands import Command, study
from tests.helpers.data import labelled_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.ray_head import RayHead
from tests.helpers.real_studies import make_folder, run, write_study

pytestmark = pytest.mark.ray


def start(path: Path, head: RayHead) -> Command:
    return Command("run", path.name, cwd=path.parent, environment=os.environ | head.environment)


def test_a_pruned_classification_study_of_one_arm(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> None:
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
    output = run(path, **ray_head.environment)
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
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> None:
    path = write_study(make_folder(tmp_path_factory, "interrupted"), name="interrupted")
    command = start(path, ray_head)
    command.wait_for("Measuring the base model")
    time.sleep(1)
    command.send(signal.SIGINT)
    assert command.wait(60) == 130, command.output
    assert "study run" in command.output and "Traceback" not in command.output


def test_workers_that_find_other_data_stop_the_study_and_no_trial_has_failed(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> None:
    path = write_study(make_folder(tmp_path_factory, "other"), name="other")
    config = load_config(path)
    shorter = config.training.model_copy(update={"sequence_length": 24})
    command = start(path, ray_head)
    command.wait_for("Measuring the base model")
    # By hand, what no command of ours does while a study runs.
    folder = StudyPaths(config.results_dir).data
    other = config.model_copy(update={"training": shorter})
    use_data(folder, prepare_data(other, folder, load_tokenizer(config.model)).fingerprint)
    assert command.wait(120) == 2, command.output
    told = " ".join(command.output.split())
    assert "other data are here than those that the study was started with" in told
    assert "Traceback" not in told
    assert all(r.state is TrialState.WAITING for r in open_study(path).results().trials)


def write_long_study(folder: Path, **changes: Any) -> Path:
    """Two trials of one arm that take long enough to be disturbed."""
    settings = {"steps": 400, "global_batch_size": 8, "sequence_length": 48, "evaluations": 3}
    return write_study(
        folder, name="long", arms=["full"], confirm={"seeds": 0}, training=settings, **changes
    )


def numbers(path: Path) -> list[list[float]]:
    return [[m.validation_loss for m in r.measurements] for r in open_study(path).results().trials]


def wait_for_training(command: Command, path: Path) -> int:
    """Process id of the first trial's rank 0, some steps after its start."""
    log = path.parent / "results" / "logs" / "full-n24-r0-s0.log"
    command.until(lambda: log.is_file() and "steps 1 to" in log.read_text())
    time.sleep(1)
    return int(log.read_text().split("process ")[1].split(",")[0])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> list[list[float]]:
    """Validation losses of the long study, with a Ray Train run per trial."""
    resources = {"workers_per_trial": 2, "gpus_per_worker": 0, "reuse_workers": False}
    path = write_long_study(make_folder(tmp_path_factory, "undisturbed"), resources=resources)
    run(path, **ray_head.environment)
    trials = open_study(path).results().trials
    assert len({r.ray_train_job for r in trials}) == len(trials) == 2
    return numbers(path)


def test_a_trial_whose_worker_is_killed_goes_on_in_another_group_with_the_same_losses(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, undisturbed: list[list[float]]
) -> None:
    path = write_long_study(make_folder(tmp_path_factory, "killed"))
    command = start(path, ray_head)
    os.kill(wait_for_training(command, path), signal.SIGKILL)
    assert command.wait(300) == 0 and "Traceback" not in command.output, command.output
    first, second = open_study(path).results().trials
    assert first.outcome is not None and "another worker group" in first.outcome.notes[0]
    assert second.outcome is not None and not second.outcome.notes
    assert first.ray_train_job == second.ray_train_job, "the new group serves both"
    assert numbers(path) == undisturbed


def test_a_study_stopped_with_ctrl_c_goes_on_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, undisturbed: list[list[float]]
) -> None:
    path = write_long_study(make_folder(tmp_path_factory, "paused"))
    command = start(path, ray_head)
    wait_for_training(command, path)
    command.send(signal.SIGINT)
    assert command.wait(60) == 130 and "Traceback" not in command.output, command.output
    assert "write checkpoints" in command.output and "study run" in command.output
    assert open_study(path).results().trials[0].state is TrialState.PAUSED
    told = study("status", path.name, cwd=path.parent).stdout
    assert "paused full-n24-r0-s0: step" in told and "running" not in told
    run(path, **ray_head.environment)
    log = (path.parent / "results" / "logs" / "full-n24-r0-s0.log").read_text()
    assert "going on after step" in log
    assert numbers(path) == undisturbed


def test_impossible_resources_are_refused_before_any_trial(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> None:
    path = write_study(
        make_folder(tmp_path_factory, "impossible"),
        name="impossible",
        resources={"workers_per_trial": 2, "cpus_per_worker": 1000, "gpus_per_worker": 0},
    )
    done = study("run", path.name, cwd=path.parent, environment=os.environ | ray_head.environment)
    assert done.returncode == 2, done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert "resources" in told and "cpus_per_worker" in told and "Traceback" not in told
