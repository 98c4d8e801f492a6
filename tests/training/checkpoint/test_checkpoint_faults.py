"""Checkpoints that cannot be read or written, or take long."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from study.training.checkpoint.files import CheckpointFolder
from tests.helpers.workers import run_workers
from tests.training.interrupted import Runs, comparable, make_folder, spec_of, study_of

SLOW_WRITE = 1e4
"""Seconds, not waited for: no trial here takes nearly as long."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory)


@contextmanager
def slow_disk() -> Iterator[None]:
    """Each checkpoint takes SLOW_WRITE by the clock."""
    clock, publish, late = time.perf_counter, CheckpointFolder._publish, 0.0

    def slow(*arguments: Any) -> None:
        nonlocal late
        late += SLOW_WRITE
        publish(*arguments)

    with (
        mock.patch("time.perf_counter", lambda: clock() + late),
        mock.patch.object(CheckpointFolder, "_publish", slow),
    ):
        yield


def one_worker(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """Trials that find a checkpoint they cannot use, or nowhere to write one."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("study").addHandler(handler)
    logging.getLogger("study").setLevel(logging.INFO)
    config, spec = study_of(folder), spec_of()
    runs = Runs(folder, config, spec, rank, world_size)
    other = Runs(folder, config, spec_of(rate=4e-3), rank, world_size)
    place = folder / "one" / "trial"
    answers: dict[str, Any] = {}

    def after(name: str, change: Any, second: Runs, folder: Path = place) -> None:
        shutil.rmtree(place, ignore_errors=True)
        messages.clear()
        runs.run(folder, kill_at=4)
        change()
        answers[name] = {"run": second.run(folder), "log": list(messages)}

    def truncate(name: str) -> None:
        (file,) = place.glob(f"step-*/{name}")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])

    def overwrite_format() -> None:
        (file,) = place.glob("step-*/rank0.json")
        content = json.loads(file.read_text())
        content["identity"]["format"] += 1
        file.write_text(json.dumps(content))

    after("nothing happens", lambda: None, runs)
    after("tensors cut", lambda: truncate("rank0.safetensors"), runs)
    after("common tensors cut", lambda: truncate("common.safetensors"), runs)
    after("document cut", lambda: truncate("rank0.json"), runs)
    after("other format", overwrite_format, runs)
    after("other trial", lambda: None, other)
    blocked = folder / "a file"
    blocked.write_text("no folder can be made below this")
    after("nowhere to write", lambda: None, runs, blocked / "trial")
    answers["whole"] = runs.run(None)
    answers["other whole"] = other.run(None)
    none = Runs(folder, study_of(folder, training={"checkpoint_share": 0.0}), spec, rank, 1)
    none.run(place, kill_at=4)
    answers["share 0"] = place.exists()
    answers["quick disk"] = runs.run(None)
    with slow_disk():
        answers["slow disk"] = runs.run(place)
    with slow_disk():
        runs.run(place, kill_at=4)
    with slow_disk():
        answers["slow disk, resumed"] = runs.run(place)
    return answers


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return run_workers(functools.partial(one_worker, folder=folder), 1)[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensors cut", "the trial starts over"),
        ("common tensors cut", "the trial starts over"),
        ("document cut", "the trial starts over"),
        ("other format", "its checkpoint is of another format"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_passed_over(
    alone: dict[str, Any], name: str, said: str
) -> None:
    assert sum(said in line for line in alone[name]["log"]) == 1
    assert not any("going on after step" in line for line in alone[name]["log"])
    assert comparable(alone[name]["run"]) == comparable(alone["whole"])


def test_an_undamaged_one_is_taken(alone: dict[str, Any]) -> None:
    answer = alone["nothing happens"]
    assert answer["log"].count("going on after step 4 from a checkpoint") == 1
    assert comparable(answer["run"]) == comparable(alone["whole"])


def test_another_trials_checkpoint_is_passed_over(alone: dict[str, Any]) -> None:
    assert any("its checkpoint is of another trial" in m for m in alone["other trial"]["log"])
    found = comparable(alone["other trial"]["run"])
    assert found == comparable(alone["other whole"])
    assert found != comparable(alone["whole"])


def test_a_trial_that_cannot_write_says_so_once_and_goes_on(alone: dict[str, Any]) -> None:
    warnings = [m for m in alone["nowhere to write"]["log"] if "without checkpoints" in m]
    assert len(warnings) == 2  # the killed run and the one after it
    assert comparable(alone["nowhere to write"]["run"]) == comparable(alone["whole"])


def test_share_0_writes_none(alone: dict[str, Any]) -> None:
    assert alone["share 0"] is False


def test_a_slow_disk_makes_no_trial_dearer(alone: dict[str, Any]) -> None:
    quick, slow = alone["quick disk"], alone["slow disk"]
    writes = len(slow["reported"])
    assert slow["outcome"]["checkpoint_device_seconds"] >= writes * SLOW_WRITE
    for measured in (slow["outcome"], slow["reported"][-1]):
        assert measured["device_seconds"] < SLOW_WRITE
    assert quick["outcome"]["checkpoint_device_seconds"] == 0
    assert comparable(slow) == comparable(quick)


def test_what_checkpoints_took_is_carried_over_to_the_next_process(alone: dict[str, Any]) -> None:
    outcome = alone["slow disk, resumed"]["outcome"]
    # Of four checkpoints the last before the kill is not known to the one that went on from it.
    assert outcome["checkpoint_device_seconds"] >= 3 * SLOW_WRITE
    assert outcome["device_seconds"] < SLOW_WRITE


def test_checkpoints_after_the_first_stay_within_their_share_of_the_time(tmp_path: Path) -> None:
    import torch

    from study.training.checkpoint.checkpoint import TrialCheckpoints
    from study.training.placement import Placement

    alone = Placement(torch.device("cpu"), 0, 1)
    checkpoints = TrialCheckpoints(tmp_path, 0.1, alone, {})
    assert checkpoints._is_due(0.0)
    checkpoints._spent, checkpoints._last = 3.0, 1.0  # seconds: of three, and of the last one
    assert not checkpoints._is_due(39.9)
    assert checkpoints._is_due(40.1)
