"""`study train` on real Ray: stopped in the middle, taken up again, and what it leaves."""

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
import torch
import yaml
from transformers import AutoModelForCausalLM

from study.reuse import best_configuration
from study.training.tokenised import StudyData, TokenisedSplit
from tests.data import task_rows, write_jsonl
from tests.models import tiny_model_folder
from tests.results import make_results

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
    content: dict[str, Any] = yaml.safe_load(best_configuration(results, "lift", 64).to_yaml())
    content["run"]["steps"] = 160
    content["strategy"]["group_size"] = 2
    content["hyperparameters"]["learning_rate"] = 2e-3
    content["training"] |= {"steps": 160, "epochs": None, "checkpoint_share": 1.0}
    content["training"] |= {"sequence_length": 48, "evaluations": 8}
    content["resources"] |= {"workers_per_trial": 2, "cpus_per_worker": 0.5, "gpus_per_worker": 0}
    (folder / "best.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "study", "train", "best.yaml", "--output", "my-model", *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@torch.no_grad()
def plain_loss(folder: Path, split: TokenisedSplit) -> float:
    """Mean loss per target token of the saved model, with nothing of the program's."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    total = count = 0.0
    for index in range(len(split)):
        ids = torch.tensor(split.input_ids(index)[None].astype("int64"))
        first = int(split.targets[index])
        logits, labels = model(input_ids=ids).logits[0, first - 1 : -1], ids[0, first:]
        total += float(torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
        count += len(labels)
    return total / count


def test_a_final_run_is_stopped_goes_on_and_leaves_a_model(folder: Path) -> None:
    first = start(folder)
    lines: list[str] = []
    assert first.stdout is not None
    for line in first.stdout:
        lines.append(line)
        if line.startswith("step  20/160"):
            first.send_signal(signal.SIGINT)
    assert first.wait() == 130, "".join(lines)
    assert "Stopped. The same command goes on from the last checkpoint." in "".join(lines)
    assert not (folder / "my-model").exists(), "nothing half-written where a model should be"
    data = StudyData.open(folder / "my-model.run" / "data")
    splits = data.validation, data.test  # mapped files: they stay open when the folder goes

    other = start(folder, "--seed", "7")
    said, _ = other.communicate()
    assert other.returncode == 2, said
    assert "holds another run (changed: spec)" in " ".join(said.split())

    second = start(folder)
    output, _ = second.communicate()
    assert second.returncode == 0, output
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

    began = time.monotonic()
    again = start(folder)
    output, _ = again.communicate()
    assert again.returncode == 0
    assert "has this configuration's model already" in " ".join(output.split())
    assert time.monotonic() - began < 60, "it starts no Ray"
    (folder / "my-model" / "study_training.json").unlink()
    refused = start(folder)
    output, _ = refused.communicate()
    assert refused.returncode == 2
    assert "something else is there" in " ".join(output.split())
