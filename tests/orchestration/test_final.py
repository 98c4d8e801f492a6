"""`study train` on real Ray: stopped in the middle, taken up again, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.reuse import best_configuration
from study.training.data.tokenised import StudyData
from tests.helpers.best_files import written
from tests.helpers.commands import Command
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.plain import plain_loss
from tests.helpers.ray_head import RayHead
from tests.helpers.results import make_results

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("final")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    results = make_results(
        model={"path": str(folder / "tiny-llama-0")},
        data={
            "train": str(folder / "mine.jsonl"),
            "prompt": "{question}",
            "response": "{answer}",
            "retention_size": 10,
        },
        zero={
            "stage": 3,
            "overrides": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
        },
    )
    content: dict[str, Any] = yaml.safe_load(written(best_configuration(results, "lift", 64)))
    content["run"]["steps"] = 160
    content["strategy"]["group_size"] = 2
    content["hyperparameters"]["learning_rate"] = 2e-3
    content["training"] |= {"steps": 160, "epochs": None, "checkpoint_share": 1.0}
    content["training"] |= {"sequence_length": 48, "evaluations": 8}
    content["resources"] |= {"workers_per_trial": 2, "cpus_per_worker": 0.5, "gpus_per_worker": 0}
    (folder / "best.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def start(folder: Path, head: RayHead, *arguments: str) -> Command:
    return Command(
        "train", "best.yaml", "--output", "my-model", *arguments,
        cwd=folder, environment=os.environ | head.environment,
    )  # fmt: skip


def test_a_final_run_is_stopped_goes_on_and_leaves_a_model(folder: Path, ray_head: RayHead) -> None:
    first = start(folder, ray_head)
    first.wait_for("step  20/160")
    first.send(signal.SIGINT)
    assert first.wait() == 130, first.output
    assert "Stopped. The same command goes on from the last checkpoint." in first.output
    assert not (folder / "my-model").exists(), "nothing half-written where a model should be"
    data = StudyData.open(folder / "my-model.run" / "data")
    splits = data.validation, data.test  # mapped files: they stay open when the folder goes

    other = start(folder, ray_head, "--seed", "7")
    assert other.wait() == 2, other.output
    assert "holds another run (changed: spec)" in " ".join(other.output.split())

    second = start(folder, ray_head)
    assert second.wait() == 0, second.output
    output = second.output
    assert "Measuring the base model" not in output, "that is on record"
    log = (folder / "my-model.run" / "logs" / "lift-final.log").read_text()
    assert "from a checkpoint" in log
    record = json.loads((folder / "my-model" / "study_training.json").read_text())
    outcome = record["outcome"]
    assert [m["step"] for m in record["measurements"]] == [20 * k for k in range(1, 9)]
    assert outcome["score"] < record["base"]["validation_loss"]
    assert f"validation {outcome['score']:.4f}, test {outcome['test_loss']:.4f}" in output
    losses = [plain_loss(folder / "my-model", split) for split in splits]
    assert losses == pytest.approx([outcome["score"], outcome["test_loss"]], abs=1e-4)
    assert f"| test | {outcome['test_loss']:.4f} |" in (folder / "my-model/README.md").read_text()

    again = start(folder, ray_head)
    assert again.wait() == 0
    assert "has this configuration's model already" in " ".join(again.output.split())
    assert "Starting Ray" not in again.output
    (folder / "my-model" / "study_training.json").unlink()
    refused = start(folder, ray_head)
    assert refused.wait() == 2
    assert "something else is there" in " ".join(refused.output.split())
