"""What a worker makes of failures and of its memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from study.basics.errors import AuditError, ModelError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.orchestration.groups.worker import (
    MemoryWatch,
    failure_kind,
    fetch_log,
    read_only,
    share_log,
    with_micro_batch_size,
)
from tests.helpers.results import make_config

MIB = 2**20


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate "
                         "memory: you tried to allocate 10 bytes."),
            "out_of_memory",
        ),
        (AuditError("3 frozen parameters moved"), "fatal"),
        (ModelError("no such folder"), "fatal"),
        (RuntimeError("Connection closed by peer"), "error"),
    ],
)  # fmt: skip
def test_failures_are_told_apart(error: BaseException, kind: str) -> None:
    assert failure_kind(error) == kind


def test_an_allocation_that_no_machine_can_serve_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert failure_kind(caught.value) == "out_of_memory"


@pytest.mark.parametrize(
    ("held", "outgrown"),
    [
        ([500, 3000, 3000, 3500], False),
        ([500, 3000, 3100, 4100], True),  # a GiB, and a quarter, above the second task's end
        ([500, 8000, 9500], False),
        ([500, 8000, 10_100], True),
        ([500, 9000], False),
    ],
)
def test_a_group_that_holds_ever_more_is_noticed(held: list[int], outgrown: bool) -> None:
    watch = MemoryWatch()
    assert [watch.outgrown(mib * MIB) for mib in held][-1] == outgrown


def test_a_smaller_micro_batch_changes_nothing_else() -> None:
    config = make_config()
    smaller = with_micro_batch_size(config, 2)
    assert smaller.training.micro_batch_size_per_worker == 2
    assert smaller.training.global_batch_size == config.training.global_batch_size
    assert with_micro_batch_size(smaller, 4) == with_micro_batch_size(config, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_bytes_come_back_as_the_tensor_they_were(dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 5).to(dtype)
    shared = tensor.contiguous().view(torch.uint8).numpy().copy()
    shared.flags.writeable = False
    assert torch.equal(read_only(shared).view(dtype).reshape(3, 5), tensor)
    assert isinstance(shared, np.ndarray)


def test_a_trial_that_comes_back_to_a_node_loses_no_attempts_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/bucket"
    config = make_config(storage={"results": url})

    def attempt(node: str, line: str, shared: bool = True) -> None:
        monkeypatch.setenv("STUDY_CACHE", str(tmp_path / node))
        log = StudyPaths(config.results_dir).trial_log("full-n64-r0-s0")
        fetch_log(config, log)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(line)
        if shared:
            share_log(config, log)

    attempt("one", "first\n")
    attempt("two", "second\n")
    attempt("one", "third\n")
    attempt("two", "fourth, killed\n", shared=False)
    attempt("one", "fifth\n")
    attempt("two", "sixth\n")
    lines = (RemoteFolder(url).read("logs/full-n64-r0-s0.log") or b"").decode().splitlines()
    assert set(lines) == {"first", "second", "third", "fourth, killed", "fifth", "sixth"}
    assert lines[:3] == ["first", "second", "third"] and lines[-1] == "sixth"
