"""Checkpoints in object storage: all ranks' files or none, and none of another trial."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from study.basics.errors import StoreError
from study.basics.remote import RemoteFolder
from study.training.checkpoint.files import Saved
from study.training.checkpoint.remote import RemoteCheckpointFolder
from study.training.placement import Placement
from tests.helpers.faulty_store import FaultyFileSystem
from tests.helpers.workers import run_workers

ALONE = Placement(torch.device("cpu"), 0, 1)
IDENTITY = {"trial": {"steps": (1, 2)}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/checkpoints/trial"


def open_folder(url: str, **identity: Any) -> RemoteCheckpointFolder:
    return RemoteCheckpointFolder(url, ALONE, IDENTITY | identity)


def write(folder: RemoteCheckpointFolder, step: int) -> None:
    full = torch.full((1000,), float(step))
    folder.write(step, {"step": step}, {"own": full}, {"common": full.bfloat16()})


def step_of(saved: Saved | None) -> int:
    assert saved is not None
    assert saved.tensors["common"].dtype is torch.bfloat16
    assert all(bool((t == saved.document["step"]).all()) for t in saved.tensors.values())
    return saved.document["step"]


def test_the_newest_one_is_kept_and_read(url: str) -> None:
    folder = open_folder(url)
    assert folder.read() is None
    for step in (5, 10, 20):
        write(folder, step)
    assert step_of(open_folder(url).read()) == 20
    assert {name.split("/")[0] for name in RemoteFolder(url).names()} == {"step-20"}
    folder.remove()
    assert RemoteFolder(url).names() == [] and folder.read() is None


def test_one_that_was_not_finished_is_not_taken(url: str) -> None:
    write(open_folder(url), 5)
    remote = RemoteFolder(url)
    for name in remote.names("step-5"):  # the writer was killed before it said that all is there
        if not name.endswith("complete"):
            remote.write(name.replace("step-5", "step-9"), remote.read(name) or b"")
    assert step_of(open_folder(url).read()) == 5


@pytest.mark.parametrize("broken", ["rank0.json", "rank0.safetensors", "common.safetensors"])
def test_a_damaged_one_is_removed_and_the_trial_starts_over(url: str, broken: str) -> None:
    write(open_folder(url), 5)
    RemoteFolder(url).write(f"step-5/{broken}", b"\x00\x01")
    assert open_folder(url).read() is None
    assert RemoteFolder(url).names() == []


def test_one_of_another_trial_is_removed(url: str) -> None:
    write(open_folder(url), 5)
    assert open_folder(url, trial="other").read() is None
    assert RemoteFolder(url).names() == []


def test_storage_that_is_lost_costs_a_checkpoint_and_not_the_trial(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    folder = open_folder(url)
    write(folder, 5)

    def lost(*_: Any) -> None:
        raise StoreError("the bucket is full.")

    monkeypatch.setattr(RemoteFolder, "upload", lost)
    write(folder, 10)
    assert "training goes on without a new checkpoint" in caplog.text
    assert step_of(open_folder(url).read()) == 5
    monkeypatch.undo()
    write(folder, 15)  # it is there again
    assert step_of(open_folder(url).read()) == 15


def test_storage_that_cannot_be_read_now_costs_no_checkpoint(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(open_folder(url), 5)

    def lost(*_: Any) -> None:
        raise StoreError("no answer from the bucket.")

    monkeypatch.setattr(RemoteFolder, "download", lost)
    # Not a StudyError: the trial is started again in another worker group.
    with pytest.raises(ConnectionError, match="no answer"):
        open_folder(url).read()
    monkeypatch.undo()
    assert step_of(open_folder(url).read()) == 5


def test_one_that_is_written_again_over_itself_is_never_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trial that is paused where it was paused before writes the same step again."""
    monkeypatch.setattr("study.basics.remote._PAUSE_SECONDS", 0.0)
    url = "faulty://bucket/checkpoints/trial"
    failed, after = True, 0
    while failed:
        FaultyFileSystem.forget()
        folder = open_folder(url)
        write(folder, 5)
        FaultyFileSystem.break_down(after)
        write(folder, 5)
        failed = FaultyFileSystem.recover()
        assert step_of(open_folder(url).read()) == 5, f"call {after}"
        after += 1
    FaultyFileSystem.forget()


def two_ranks(rank: int, world_size: int, url: str) -> tuple[int, float]:
    """Each writes its own tensors; each reads its own back, and rank 0's common ones."""
    placement = Placement(torch.device("cpu"), rank, world_size)
    folder = RemoteCheckpointFolder(url, placement, IDENTITY)
    own, common = torch.full((10,), float(rank)), torch.full((10,), 7.0 + rank)
    folder.write(3, {"rank": rank}, {"own": own}, {"common": common})
    saved = RemoteCheckpointFolder(url, placement, IDENTITY).read()
    assert saved is not None
    assert bool((saved.tensors["own"] == rank).all())
    return saved.document["rank"], float(saved.tensors["common"][0])


def test_ranks_that_share_no_disk_share_the_checkpoint(url: str) -> None:
    assert run_workers(functools.partial(two_ranks, url=url), 2) == [(0, 7.0), (1, 7.0)]
