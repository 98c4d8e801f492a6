"""Small studies that really run, as a user runs them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.commands import Command
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder


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


def run(path: Path, **environment: str) -> str:
    """What `study run` printed; it ended well.

    Args:
        environment: besides this process's own, such as a cluster's.
    """
    command = Command("run", path.name, cwd=path.parent, environment=os.environ | environment)
    assert command.wait() == 0, command.output
    return command.output


def make_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    folder = tmp_path_factory.mktemp(name)
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    return folder


def statuses(output: str) -> dict[str, str]:
    found = re.findall(r"^(pass|warn|fail|skip)  (.{13})  ", output, re.M)
    return {name.strip(): status for status, name in found}
