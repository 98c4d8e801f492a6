"""Runs a study on a two-node cluster while processes of it are killed, again and again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from study import open_study
from study.protocol.records import TrialRecord

KINDS = ("driver", "trial", "controller", "worker", "node")
_TITLES = {
    "trial": "ray::ResourceTrainable",
    "controller": "ray::TrainController",
    "worker": "ray::RayTrainWorker",
}


def write_chaos_study(folder: Path, trials: int) -> Path:
    """Suggestions and stops that depend on results, two arms side by side, confirm trials."""
    config: dict[str, Any] = {
        "name": "chaos",
        "model": {"path": "./tiny-llama-0"},
        "data": {"train": "mine.jsonl", "prompt": "{question}", "response": "{answer}",
                 "retention_size": 10},
        "dataset_sizes": [24],
        "arms": {"full": {}, "lift": {"group_size": 2}},
        # A probe's clock must not decide how many steps a trial has.
        "comparison": "tokens",
        "search": {
            "space": {"shared": {
                "learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True},
                "warmup_ratio": {"low": 0.0, "high": 0.2},
                "max_grad_norm": 1.0,
            }},
            "trials": trials, "replicates": 1, "sampler": "tpe", "pruner": "asha",
        },
        "confirm": {"seeds": 2},
        "training": {"steps": 400, "global_batch_size": 8, "sequence_length": 48,
                     "evaluations": 8, "checkpoint_share": 1.0},
        "resources": {"workers_per_trial": 2, "cpus_per_worker": 0.5, "gpus_per_worker": 0},
        # What is read back was computed in batches of another trial: equal to a rounding only.
        "prefix_cache": {"enabled": False},
        "storage": {"results": "results"},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def facts(record: TrialRecord) -> dict[str, Any]:
    """What must not depend on what was killed."""
    outcome = record.outcome
    return {
        "state": record.state.value,
        "hyperparameters": record.spec.hyperparameters,
        "losses": [(m.step, m.train_loss, m.validation_loss) for m in record.measurements],
        "test": outcome.test_loss if outcome else None,
        "retention": outcome.retention_loss if outcome else None,
    }


def all_facts(path: Path) -> dict[str, dict[str, Any]]:
    return {r.spec.trial_id: facts(r) for r in open_study(path).results().trials}


@dataclass
class Chaos:
    """What was done to a study, and what it did meanwhile.

    Attributes:
        kills: how often each kind of process was killed.
        starts: of the driver.
        stops: of the driver by itself, with the advice to run the study again.
        ended: every trial that was seen to have ended, as it was then.
        changed: trials that had ended and were something else later.
    """

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    stops: int = 0
    ended: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)


class Tormentor:
    """Kills processes of one study from a seed, and starts its driver again when it is gone."""

    def __init__(self, path: Path, cluster: Any, seed: int, log: Path) -> None:
        self.path, self.cluster, self.log = path, cluster, log
        self.rng = random.Random(seed)
        self.found = Chaos()
        self.driver: subprocess.Popen[bytes] | None = None

    def run(self, kills: int, limit_seconds: float) -> Chaos:
        """Kill so many processes, then let the study finish."""
        deadline = time.monotonic() + limit_seconds
        self._start()
        for kind in self._kinds(kills):
            time.sleep(self.rng.uniform(0.0, 6.0))
            while not self._driver_has_left() and not self._kill(kind):
                assert time.monotonic() < deadline, self._words(f"no {kind} to kill")
                time.sleep(0.1)
            self._look()
        while not self._driver_has_left():
            assert time.monotonic() < deadline, self._words("hangs")
            time.sleep(0.5)
        self._look()
        return self.found

    def _kinds(self, kills: int) -> list[str]:
        """Each kind as often as the others, in random order."""
        rounds = -(-kills // len(KINDS))
        return [k for _ in range(rounds) for k in self.rng.sample(KINDS, len(KINDS))][:kills]

    def _start(self) -> None:
        self.found.starts += 1
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "study", "run", self.path.name],
                cwd=self.path.parent,
                env=os.environ | {"RAY_ADDRESS": self.cluster.address, "COLUMNS": "80"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _driver_has_left(self) -> bool:
        assert self.driver is not None
        if self.driver.poll() is None:
            return False
        if self.driver.returncode == 1 and "run the study again" in self.log.read_text()[-600:]:
            # Killed too often in a row to go on by itself: it stopped cleanly, and says what to do.
            self.found.stops += 1
            self._start()
            return False
        assert self.driver.returncode == 0, self._words(f"exit code {self.driver.returncode}")
        return True

    def _kill(self, kind: str) -> bool:
        """Whether there was one to kill."""
        assert self.driver is not None
        if kind == "driver":
            self.driver.kill()
            self.driver.wait()
            self._start()
        elif kind == "node":
            (node, *_) = self.cluster.worker_nodes
            node.all_processes["raylet"][0].process.kill()
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
        else:
            victims = self.processes(_TITLES[kind])
            if not victims:
                return False
            self.rng.choice(victims).kill()
        self.found.kills[kind] += 1
        return True

    def processes(self, title: str) -> list[psutil.Process]:
        """Ray's worker processes of a kind on both nodes, oldest first."""
        found = []
        for node in [self.cluster.head_node, *self.cluster.worker_nodes]:
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            for process in raylet.children(recursive=True):
                try:
                    if process.cmdline() and process.cmdline()[0].startswith(title):
                        found.append(process)
                except psutil.Error:
                    continue
        return sorted(found, key=lambda p: p.pid)

    def _look(self) -> None:
        """Compare trials that have ended with what they were when they were first seen so."""
        if not (self.path.parent / "results" / "study.db").is_file():
            return
        for record in open_study(self.path).results().trials:
            if not record.state.has_ended:
                if record.spec.trial_id in self.found.ended:
                    self.found.changed.append(record.spec.trial_id)
                continue
            now = json.dumps(record.to_dict(), sort_keys=True)
            if self.found.ended.setdefault(record.spec.trial_id, now) != now:
                self.found.changed.append(record.spec.trial_id)

    def _words(self, what: str) -> str:
        return f"{what} after {dict(self.found.kills)}\n{self.log.read_text()[-4000:]}"


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two raylets, each with room for one group of two workers."""
    from ray._private.utils import write_ray_address
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": True, "dashboard_port": 0},
    )
    try:
        cluster.add_node(num_cpus=1)
        # As an earlier cluster leaves it that was not stopped: nothing may rely on it.
        write_ray_address("127.0.0.1:1")
        yield cluster
    finally:
        cluster.shutdown()


def placement_groups(address: str) -> list[str]:
    """States of the placement groups that are not removed, as the cluster knows them."""
    script = (
        "import json, ray; from ray.util import placement_group_table as table; "
        "ray.init(logging_level='ERROR', log_to_driver=False); "
        "print(json.dumps([g['state'] for g in table().values() if g['state'] != 'REMOVED']))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])
