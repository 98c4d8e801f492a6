"""`study cluster render`, as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from study.basics.errors import UserError
from study.cli.cluster import cluster_app
from tests.helpers.cluster_studies import write_study

WORKERS = {"workers_per_trial": 8, "cpus_per_worker": 4}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_study(tmp_path, WORKERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_output_the_file_alone_is_on_standard_output(folder: Path) -> None:
    ran = CliRunner().invoke(cluster_app, ["render", "kuberay", "--image", "mine:1"])
    assert ran.exit_code == 0
    assert [d["kind"] for d in yaml.safe_load_all(ran.stdout)] == ["ConfigMap", "RayJob"]
    assert "1 node of 33 CPUs, 8 GPUs: 1 trial at once." in ran.stderr
    assert "claim (line" in ran.stderr and "image (line" not in ran.stderr
    assert re.search(r"/shared/big-study-1-[0-9a-f]{8}/train\.jsonl", ran.stderr)


def test_a_study_of_one_gpu_type_asks_for_the_clusters_name_of_it(folder: Path) -> None:
    write_study(folder, WORKERS | {"accelerator_type": "H100"})
    for more, asked in ([], True), (["--accelerator", "NVIDIA-H100-80GB-HBM3"], False):
        ran = CliRunner().invoke(cluster_app, ["render", "kuberay", *more])
        assert ran.exit_code == 0
        assert ("trains on H100 alone: give --accelerator" in ran.stderr) == asked


def test_an_existing_file_is_replaced_only_when_told_so(folder: Path) -> None:
    command = ["render", "slurm", "study.yaml", "--output", "job.sh", "--set", "partition=fast"]
    assert CliRunner().invoke(cluster_app, command).exit_code == 0
    assert "#   sbatch job.sh" in (folder / "job.sh").read_text()
    again = CliRunner().invoke(cluster_app, command)
    assert isinstance(again.exception, UserError) and again.exception.exit_code == 2
    assert CliRunner().invoke(cluster_app, [*command, "--force", "--nodes", "3"]).exit_code == 0
    assert "#SBATCH --nodes=3 " in (folder / "job.sh").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nomad"], "no target 'nomad'"),
        (["slurm", "--image", "x"], "`image` is no value"),
        (["slurm", "--set", "partition"], "KEY=VALUE"),
        (["slurm", "missing.yaml"], "No study file missing.yaml"),
        (["aws", "--nodes", "1", "--gpus-per-node", "4"], "--nodes is 1"),
    ],
)
def test_wrong_input_writes_nothing(folder: Path, arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(cluster_app, ["render", *arguments, "--output", "out"])
    assert isinstance(ran.exception, UserError) and ran.exception.exit_code == 2
    assert message in str(ran.exception)
    assert not (folder / "out").exists()
