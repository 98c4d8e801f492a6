"""All at once: two raylets, four trials, PostgreSQL, results in a bucket, a node lost."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study.basics.remote import RemoteFolder
from study.protocol.records import TrialState
from study.store.published import read_results
from tests.helpers.object_store import BUCKET, s3_environment, s3_server
from tests.orchestration.nodes import Run, head_alone, kill, make_study, workers_on

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

URL = f"s3://{BUCKET}/studies/nodes"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials and endpoint are in the environment of every process, and nowhere else."""
    with s3_server() as port:
        for name, value in s3_environment(port).items():
            monkeypatch.setenv(name, value)
        yield


def running_by_metrics(nodes: list[Any]) -> float:
    """Trials that run, as Prometheus reads it: the driver reports to one of this host's nodes."""
    lines: list[str] = []
    for node in nodes:
        url = f"http://127.0.0.1:{node.metrics_export_port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            lines += answer.read().decode().splitlines()
    running = [x for x in lines if x.startswith("ray_study_trials{") and '"RUNNING"' in x]
    return sum(float(line.rpartition(" ")[2]) for line in running)


def data_of(place: str) -> list[Path]:
    """The tokenised data that a node with this cache folder has of its own."""
    return list(Path(place).glob("nodes-*/data/*/pool.*"))


def test_a_study_survives_the_loss_of_a_node_and_is_read_from_the_bucket_elsewhere(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    postgres: Any,
    postgres_database: str,
    bucket: None,
) -> None:
    monkeypatch.setenv("STUDY_CACHE", str(tmp_path_factory.mktemp("driver")))
    path = make_study(tmp_path_factory, "cluster", {"results": URL, "database": postgres_database})
    remote = RemoteFolder(URL)
    with head_alone() as cluster:
        # No folder is shared: what a node needs of the study comes through the bucket.
        own = [str(tmp_path_factory.mktemp("node")) for _ in range(2)]
        nodes = [cluster.add_node(num_cpus=1, env_vars={"STUDY_CACHE": place}) for place in own]
        run = Run(path, cluster.address)
        try:
            run.until(lambda: [len(workers_on(node)) for node in nodes] == [2, 2])
            run.until(lambda: running_by_metrics([cluster.head_node, *nodes]) == 4)
            run.until(lambda: all(data_of(place) for place in own))
            kill(cluster, nodes[0])
            run.until(run.says("A node left; 2 trials run at once"))
            assert run.end() == 0, run.output
        finally:
            run.stop()
    assert f"Report: {URL}/report/report.html" in " ".join(run.output.split())
    trials = read_results(URL).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert all(len(t.measurements) == 8 for t in trials), "those of the lost node went on"
    names = set(remote.names())
    assert {"report/report.html", "report/report.json", "results.json.gz"} <= names
    assert not [name for name in names if name.startswith("checkpoints/")]

    # Another machine has neither the study file nor the working folder nor the database.
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("STUDY_CACHE", str(elsewhere / "cache"))
    postgres.stop()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "study", "report", URL, "--output", "report"],
            cwd=elsewhere, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        postgres.ensure_postgres_running()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (elsewhere / "report" / "report.html").is_file()
