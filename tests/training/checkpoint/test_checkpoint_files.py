"""On the disk there is a whole checkpoint or none, whenever the process that writes is killed."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from study.training.checkpoint.files import CheckpointFolder, Saved
from study.training.placement import Placement

ALONE = Placement(torch.device("cpu"), 0, 1)


def write(folder: CheckpointFolder, step: int, scalars: int = 1000) -> None:
    """A checkpoint in which every number is its step."""
    full = torch.full((scalars,), float(step))
    folder.write(step, {"step": step}, {"own": full}, {"common": full.bfloat16()})


def step_of(saved: Saved | None) -> int:
    """The step of a whole checkpoint."""
    assert saved is not None
    step = saved.document["step"]
    assert saved.tensors.keys() == {"own", "common"}
    assert all(bool((tensor == step).all()) for tensor in saved.tensors.values())
    return step


def child_process(action: Callable[[], None]) -> BaseProcess:
    """A forked process, to be started many times, that runs `action`."""

    def alone() -> None:
        # The parent's OpenMP threads are not forked: a parallel operation would wait for them.
        torch.set_num_threads(1)
        action()

    return multiprocessing.get_context("fork").Process(target=alone)


def in_a_child(action: Callable[[], None]) -> int:
    """Exit code of a process that ran `action`; minus the signal that killed it."""
    child = child_process(action)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "trial"


@pytest.fixture
def folder(root: Path) -> CheckpointFolder:
    return CheckpointFolder(root, ALONE, {"trial": {"steps": (1, 2)}})


def test_a_disk_that_would_be_left_with_less_than_a_checkpoint_keeps_the_old_one(
    folder: CheckpointFolder, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    bytes_each = 1000 * (4 + 2)
    asked: list[Path] = []

    def disk_usage(place: Path) -> SimpleNamespace:
        asked.append(place)
        return SimpleNamespace(free=free)

    monkeypatch.setattr("study.training.checkpoint.files.shutil.disk_usage", disk_usage)
    free = 2 * bytes_each
    write(folder, 4)
    free -= 1
    write(folder, 8)
    assert step_of(folder.read()) == 4
    assert [path.name for path in root.iterdir()] == ["step-4"]
    assert "no checkpoint of 5.9 KiB: the disk has 11.7 KiB free" in caplog.text
    free += 1
    write(folder, 12)
    assert step_of(folder.read()) == 12
    assert asked == [root.parent.parent, root, root]  # the trial's folder, or what is there of it


def test_what_was_written_comes_back_and_replaces_what_was_before(
    folder: CheckpointFolder, root: Path
) -> None:
    assert folder.read() is None
    for step in (4, 8, 12):
        write(folder, step)
        assert step_of(folder.read()) == step
        assert [path.name for path in root.iterdir()] == [f"step-{step}"]
    folder.remove()
    assert not root.exists() and folder.read() is None


def test_nothing_on_the_disk_is_pickled(folder: CheckpointFolder, root: Path) -> None:
    write(folder, 4)
    names = {path.name for path in root.glob("step-4/*")}
    assert names == {"rank0.json", "rank0.safetensors", "common.safetensors"}


@pytest.mark.parametrize("identity", [{"trial": {"steps": (1, 3)}}, {"size": 1}, {}])
def test_a_checkpoint_of_another_identity_is_removed(
    folder: CheckpointFolder,
    root: Path,
    identity: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(folder, 4)
    assert CheckpointFolder(root, ALONE, identity).read() is None
    assert "its checkpoint is of another " in caplog.text and "trial" in caplog.text
    assert not root.exists()


def test_killed_before_any_of_its_file_operations_a_write_leaves_a_whole_checkpoint(
    root: Path, folder: CheckpointFolder
) -> None:
    events = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
    write(folder, 1)
    found = []
    for moment in range(1, 1000):

        def killed_write(moment: int = moment, step: int = 1 + moment) -> None:
            seen = 0

            def hook(event: str, _: object) -> None:
                nonlocal seen
                if event in events:
                    seen += 1
                    if seen == moment:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            write(folder, step)
            os._exit(0)

        code = in_a_child(killed_write)
        found.append(step_of(folder.read()))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert found[-1] in (1 + moment, [1, *found][-2])
    # Early kills leave the first one, late ones have replaced it; the last write was not killed.
    assert found[0] == 1 and found[-1] == len(found) + 1
    assert len(found) > 10
    assert [path.name for path in root.iterdir()] == [f"step-{found[-1]}"]


def test_killed_while_it_writes_tensors_it_leaves_a_whole_checkpoint(
    folder: CheckpointFolder,
) -> None:
    write(folder, 1)
    generator = random.Random(0)

    def write_on(first: int) -> None:
        for step in range(first, first + 1000):
            write(folder, step, scalars=1_000_000)

    last = 1
    for _ in range(6):
        child = child_process(functools.partial(write_on, last + 1))
        child.start()
        time.sleep(generator.uniform(0.02, 0.3))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        now = step_of(folder.read())
        assert now >= last
        last = now
    assert last > 1


def test_a_disk_that_takes_no_more_keeps_the_old_one_and_stops_writing(
    folder: CheckpointFolder, root: Path
) -> None:
    write(folder, 1)

    def limited() -> None:
        # Like a full disk: writing fails half-way through a file.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        write(folder, 2, scalars=1_000_000)
        assert folder.failed
        write(folder, 3)  # would fit
        os._exit(7)

    assert in_a_child(limited) == 7
    assert step_of(folder.read()) == 1
    assert [path.name for path in root.iterdir()] == ["step-1"]
