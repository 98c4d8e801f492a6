"""Ray's own autoscaler, with nodes that are processes of this machine, is shown what waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.ray_head import free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NODE = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}
HEAD_ID = "f" * 51 + "00000"
HEAD = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
# What Ray's own tests use; its wheel lacks their file.
CONFIG = {
    "cluster_name": "fake_multinode",
    "max_workers": 8,
    "available_node_types": {"small": NODE, "ray.head.default": HEAD},
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{f"{key}_commands": [] for key in (
        "initialization", "setup", "head_setup", "worker_setup", "head_start_ray",
        "worker_start_ray",
    )},
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    "file_mounts_sync_continuously": False,
}  # fmt: skip

FOLLOW = """
import json, sys, time
import ray
from study.config.load import ResourcesConfig
from study.orchestration.cluster import cluster
from study.orchestration.cluster.capacity import find_capacity

told = []
cluster.start_ray()
before = len(cluster.living_nodes())
capacity = find_capacity(ResourcesConfig(gpus_per_worker=0), None, told.append)
first, capacity.backlog = capacity.trials, 2
trial = ray.util.placement_group([{"CPU": 1}])  # what its worker group would hold
while not trial.wait(1):
    capacity.look()
deadline = time.monotonic() + 300
while capacity.trials < 2 and time.monotonic() < deadline:
    time.sleep(0.5)
    capacity.look()
second, capacity.backlog = capacity.trials, 0
time.sleep(3)
capacity.look()
ray.util.remove_placement_group(trial)
time.sleep(1)
pending = [g["state"] for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
print(json.dumps([before, first, second, pending, told]))
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A head without room, whose autoscaler may add two nodes of one CPU."""
    port = free_port()
    provider = {
        "type": "fake_multinode",
        "gcs_address": f"127.0.0.1:{port}",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    file = tmp_path / "autoscaler.json"
    file.write_text(json.dumps(CONFIG | {"provider": provider}))
    head = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "ray"), "start", "--head", "--block",
            f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=0",
            f"--autoscaling-config={file}",
            "--include-dashboard=true", f"--dashboard-port={free_port()}",
        ],
        env=os.environ
        | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        | {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
        | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(timeout=60)


def test_nodes_come_for_a_trial_that_waits_and_for_those_behind_it(address: str) -> None:
    deadline = time.monotonic() + 240
    while True:  # the head may not listen yet
        found = subprocess.run(
            [sys.executable, "-c", FOLLOW],
            env=os.environ | {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0 or time.monotonic() > deadline:
            break
    assert found.returncode == 0, found.stderr[-3000:]
    before, first, second, pending, told = json.loads(found.stdout.splitlines()[-1])
    assert (before, first, second) == (1, 1, 2)
    assert pending == [], "what was shown to the autoscaler is given up once it is there"
    assert told == [
        "Not one trial fits yet. Waiting for nodes for 30 min 0 s",
        "A node joined; 2 trials run at once",
    ]
