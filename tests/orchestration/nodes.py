"""Ray nodes on this machine that come and go, and a study that runs on them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder

WORKER = "ray::RayTrainWorker"
FIRST = "full-n24-r0-s0"
STEPS = 200
"""Of a trial: long enough for something to happen while it runs."""


def make_study(
    folders: pytest.TempPathFactory,
    name: str,
    storage: Mapping[str, Any] | None = None,
    **resources: Any,
) -> Path:
    """Two arms of two search trials, all of which may run at once."""
    folder = folders.mktemp(name)
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    config: dict[str, Any] = {
        "name": "nodes",
        "model": {"path": "./tiny-llama-0"},
        "data": {"train": "mine.jsonl", "prompt": "{question}", "response": "{answer}",
                 "retention": None},
        "dataset_sizes": [24],
        "arms": {"full": {}, "lift": {"group_size": 2}},
        # A probe's clock must not decide how many steps a trial has.
        "comparison": "tokens",
        "search": {
            "space": {"shared": {
                "learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True},
                "warmup_ratio": 0.1,
                "max_grad_norm": 1.0,
            }},
            "trials": 2, "replicates": 1,
        },
        "confirm": {"seeds": 0},
        "training": {"steps": STEPS, "global_batch_size": 8, "sequence_length": 48,
                     "evaluations": 8, "checkpoint_share": 1.0},
        "resources": {"gpus_per_worker": 0, "cpus_per_worker": 0.5, **resources},
        # What is read back was computed in batches of another trial: equal to a rounding only.
        "prefix_cache": {"enabled": False},
        "storage": {"results": "results", **(storage or {})},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def head_alone() -> Iterator[Any]:
    """A cluster whose head holds no worker; nodes are added with `add_node(num_cpus=...)`."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": 0,
            "_system_config": {"metrics_report_interval_ms": 1000},
        },
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()


def kill(cluster: Any, node: Any) -> None:
    """As a machine that loses its power."""
    node.all_processes["raylet"][0].process.kill()
    cluster.remove_node(node, allow_graceful=False)


def workers_on(node: Any) -> list[psutil.Process]:
    """Training processes of a node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    found = []
    for process in raylet.children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0].startswith(WORKER):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Run:
    """`study run` on a cluster, its output in a file."""

    def __init__(self, path: Path, address: str | None) -> None:
        self.path, self._log = path, path.parent / "driver.log"
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        joined = {"RAY_ADDRESS": address} if address else {}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "study", "run", path.name],
                cwd=path.parent,
                env=environment | joined | {"COLUMNS": "120"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], Any], limit_seconds: float = 400) -> None:
        """Wait for something while the study runs."""
        deadline = time.monotonic() + limit_seconds
        while not condition():
            assert self._process.poll() is None, f"it has ended:\n{self.output}"
            assert time.monotonic() < deadline, f"in vain:\n{self.output}"
            time.sleep(0.1)

    def says(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.output

    def trains(self, trial_id: str) -> Callable[[], bool]:
        """Whether a trial has taken its first steps; its log is on this machine."""
        log = self.path.parent / "results" / "logs" / f"{trial_id}.log"
        return lambda: log.is_file() and "steps 1 to" in log.read_text()

    def end(self, limit_seconds: float = 600) -> int:
        """Its exit code."""
        try:
            code = self._process.wait(limit_seconds)
        finally:
            self.stop()
        assert "Traceback" not in self.output, self.output
        return code

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
