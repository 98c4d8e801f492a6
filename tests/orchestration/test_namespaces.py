"""Two Ray nodes with addresses of their own, in network namespaces that one cable connects.

The hosts' own name resolves to the loopback in both, as on many a Debian machine, so what gloo
takes by itself does not lead to the other one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.real_studies import statuses
from tests.orchestration.chaos import all_facts
from tests.orchestration.nodes import make_study

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

PORT = 26379
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "COLUMNS": "120",
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Host:
    """A network namespace with one cable; `command` runs in it."""

    name: str
    address: str
    interface: str

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
            | ENVIRONMENT
            | options.pop("environment", {}),
            text=True,
            **options,
        )

    def ray(self, *options: str) -> subprocess.Popen[str]:
        program = str(Path(sys.executable).parent / "ray")
        return self.start(
            program, "start", "--block", "--num-cpus=1", f"--node-ip-address={self.address}",
            *options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def study(self, verb: str, path: Path, head: str) -> tuple[int, str]:
        process = self.start(
            sys.executable, "-m", "study", verb, path.name,
            cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            environment={"RAY_ADDRESS": head},
        )  # fmt: skip
        output, _ = process.communicate(timeout=500)
        assert "Traceback" not in output, output
        return process.returncode, output


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """Two, each with a Ray node on it; the first has the head."""
    tag = uuid.uuid4().hex[:5]
    found = [Host(f"study-{tag}-{i}", f"10.77.0.{i}", f"st{tag}{i}") for i in (1, 2)]
    try:
        for host in found:
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
        first, second = found
        ip("link", "add", first.interface, "type", "veth", "peer", "name", second.interface)
        for host in found:
            ip("link", "set", host.interface, "netns", host.name)
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.interface)
            ip("-n", host.name, "link", "set", host.interface, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        _delete(found)
        pytest.skip(f"no network namespaces here: {error}")
    processes = []
    try:
        processes.append(first.ray("--head", f"--port={PORT}", "--include-dashboard=true"))
        _wait_for_nodes(first, 1)
        processes.append(second.ray(f"--address={first.address}:{PORT}"))
        _wait_for_nodes(first, 2)
        yield found
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=60)
        _delete(found)


def _delete(hosts: list[Host]) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)


def _wait_for_nodes(host: Host, count: int) -> None:
    script = (
        "import ray, sys\n"
        "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
        "sys.exit(sum(n['Alive'] for n in ray.nodes()) < int(sys.argv[2]))\n"
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        probe = host.start(
            sys.executable, "-c", script, f"{host.address}:{PORT}", str(count),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            if probe.wait(timeout=90) == 0:
                return
        except subprocess.TimeoutExpired:  # a busy machine
            probe.kill()
        time.sleep(1)
    pytest.fail(f"{count} nodes did not come up")


def test_a_trial_over_two_hosts_trains_as_on_one(
    tmp_path_factory: pytest.TempPathFactory, hosts: list[Host], wide: dict[str, Any]
) -> None:
    first, _ = hosts
    path = make_study(tmp_path_factory, "hosts", workers_per_trial=2, cpus_per_worker=1)
    code, output = first.study("check", path, f"{first.address}:{PORT}")
    assert code == 0 and statuses(output)["network"] == "pass", output
    assert "2 nodes reach each other" in " ".join(output.split())
    code, output = first.study("run", path, f"{first.address}:{PORT}")
    assert code == 0, output
    assert all_facts(path) == wide


def test_hosts_that_do_not_reach_each_other_are_named_before_any_trial(
    tmp_path_factory: pytest.TempPathFactory, hosts: list[Host]
) -> None:
    first, second = hosts
    path = make_study(
        tmp_path_factory, "wrong", workers_per_trial=2, cpus_per_worker=1, network_interface="lo"
    )
    code, output = first.study("check", path, f"{first.address}:{PORT}")
    told = " ".join(output.split())
    assert code == 2 and statuses(output)["network"] == "fail", output
    assert f"({first.address})" in told and f"({second.address}) do not reach each other" in told
    assert "Let the nodes reach each other on all TCP ports, or set resources.network" in told
