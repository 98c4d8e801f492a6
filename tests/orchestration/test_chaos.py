"""A study whose processes are killed at random ends as one that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.orchestration.chaos import (
    Tormentor,
    all_facts,
    placement_groups,
    two_nodes,
    write_chaos_study,
)


def make_study(folder: Path, trials: int) -> Path:
    folder.mkdir()
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(120))
    return write_chaos_study(folder, trials)


def torment(tmp_path: Path, trials: int, kills: int, seed: int) -> None:
    quiet = make_study(tmp_path / "quiet", trials)
    subprocess.run(
        [sys.executable, "-m", "study", "run", quiet.name],
        cwd=quiet.parent, check=True, capture_output=True,
    )  # fmt: skip
    path = make_study(tmp_path / "chaos", trials)
    with two_nodes() as cluster:
        tormentor = Tormentor(path, cluster, seed, tmp_path / "driver.log")
        started = time.monotonic()
        found = tormentor.run(kills, limit_seconds=300 + 60 * kills)
        print(
            f"{dict(found.kills)} killed, {found.starts} drivers, {found.stops} stops, "
            f"{len(found.ended)} trials, {time.monotonic() - started:.0f} s"
        )
        assert found.kills.total() == kills, "the study was over too soon to show anything"
        assert not found.changed, "a trial that had ended changed"
        assert all_facts(path) == all_facts(quiet)
        deadline = time.monotonic() + 30
        while tormentor.processes("ray::RayTrainWorker") or placement_groups(cluster.address):
            assert time.monotonic() < deadline, "something of the study is left in the cluster"
            time.sleep(1)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_few_kills_change_nothing(tmp_path: Path) -> None:
    torment(tmp_path, trials=4, kills=5, seed=1)


@pytest.mark.chaos
@pytest.mark.timeout(6000)
def test_fifty_kills_change_nothing(tmp_path: Path) -> None:
    torment(tmp_path, trials=12, kills=50, seed=2)
