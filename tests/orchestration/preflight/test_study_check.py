"""`study check` on real Ray, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from study.basics.owned import MARK
from tests.helpers.commands import Command
from tests.helpers.ray_head import RayHead, end_at_once, free_port
from tests.helpers.real_studies import make_folder, statuses, write_study

pytestmark = pytest.mark.ray


def check(path: Path, *options: str, **environment: str) -> tuple[int, str]:
    command = Command(
        "check", path.name, *options, cwd=path.parent, environment=os.environ | environment
    )
    code = command.wait(300)
    assert "Traceback" not in command.output and "WARNING" not in command.output, command.output
    return code, command.output


def test_a_study_that_can_run_passes_every_check_and_its_hours_are_predicted(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> None:
    path = write_study(make_folder(tmp_path_factory, "checked"), name="checked")
    code, output = check(path, "--probe", **ray_head.environment)
    assert code == 0, output
    found = statuses(output)
    assert set(found.values()) == {"pass"}, output
    expected = "storage database data model tokens plan ray resources nodes versions accelerators "
    expected += "paths deepspeed dashboard token disk prediction"
    assert {*expected.split(), "node database"} < found.keys()
    assert {f"{kind} {arm}" for kind in ("memory", "probe") for arm in ("full", "lift")} <= {*found}
    told = " ".join(output.split())
    assert re.search(r"a real step peaks at \d{3}\.\d MiB a worker", told)
    hours = (
        r"about (\d+ min )?\d+ s \(9 of 10 such studies: .*? to .*?\) for 6 of 6 trials, 1 at once"
    )
    assert re.search(rf"{hours}; [\d.]+ device-", told)
    assert "study run study.yaml" in output
    assert max(map(len, output.splitlines())) <= 80 or str(path.parent) in output
    # Data that the study will use, and the log; no database, no prefix cache, none of Ray's files.
    results = path.parent / "results"
    assert {p.name for p in results.iterdir()} == {"data", "logs", MARK}


def test_sixty_four_gpus_on_this_machine_fail_within_seconds_and_the_rest_is_still_checked(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = write_study(
        make_folder(tmp_path_factory, "gpus"),
        name="gpus",
        resources={"workers_per_trial": 64, "gpus_per_worker": 1},
        training={"steps": 8, "global_batch_size": 64, "sequence_length": 48},
    )
    # As another cluster leaves it that was not stopped; Ray's own tools would ask that one. Not in
    # pytest's folder: the paths of Ray's sockets have to be short.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        code, output = check(path, RAY_TMPDIR=folder)
    assert code == 2
    found, told = statuses(output), " ".join(output.split())
    assert [name for name, status in found.items() if status == "fail"] == ["resources"]
    assert "a trial needs 64 workers" in told and "0 GPUs" in told
    assert "Lower resources.workers_per_trial" in told
    assert found["data"] == found["paths"] == found["dashboard"] == "pass"
    assert found["memory full"] == found["deepspeed"] == found["prediction"] == "skip"


def test_a_node_that_does_not_see_the_results_folder_is_found(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Two Ray nodes, of which the second has an empty file system over the results folder."""
    hidden = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if hidden.returncode:
        pytest.skip("file systems cannot be mounted here")
    path = write_study(make_folder(tmp_path_factory, "two"), name="two")
    results = path.parent / "results"
    results.mkdir()
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    address = f"127.0.0.1:{free_port()}"
    head = start_node(
        environment, "--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=true",
        f"--dashboard-port={free_port()}",
    )  # fmt: skip
    blind = start_node(environment, f"--address={address}", hide=results)
    try:
        wait_for_nodes(address, 2, environment)
        code, output = check(path, **environment, RAY_ADDRESS=address)
    finally:
        end_at_once(blind)
        end_at_once(head)
    assert code == 2, output
    found, told = statuses(output), " ".join(output.split())
    assert [n for n, status in found.items() if status == "fail"] == ["paths", "node database"]
    assert found["token"] == "warn" and found["nodes"] == found["versions"] == "pass"
    assert "Put storage.results on a file system that all nodes share." in told
    assert "PostgreSQL" in told


def start_node(
    environment: dict[str, str], *options: str, hide: Path | None = None
) -> subprocess.Popen[bytes]:
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", *options]
    if hide is not None:
        script = 'mount -t tmpfs none "$1" && shift && exec "$@"'
        ray = ["unshare", "--mount", "sh", "-c", script, "sh", str(hide), *ray]
    return subprocess.Popen(
        ray, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for_nodes(address: str, count: int, environment: dict[str, str]) -> None:
    script = (
        "import ray, sys, time\n"
        "ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "while sum(n['Alive'] for n in ray.nodes()) < int(sys.argv[2]): time.sleep(0.2)\n"
    )
    command: list[Any] = [sys.executable, "-c", script, address, str(count)]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:  # the head may not listen yet
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, timeout=90, check=False
        )
        if not done.returncode:
            return
        time.sleep(1)
    pytest.fail("the second node did not come up")
