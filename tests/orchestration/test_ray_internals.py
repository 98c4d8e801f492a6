"""What Ray does not promise may go: a study then goes on, and says what it misses."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ray.job_config import JobConfig

from study.orchestration import ray_internals

CALLBACKS = [object()]


def import_path() -> Any:
    job = JobConfig()
    ray_internals.set_import_path(job, ["here"])
    return job._py_driver_sys_path


@pytest.mark.parametrize(
    ("module", "ask", "otherwise"),
    [
        ("ray.tune.execution", ray_internals.keep_from_tune, None),
        ("ray._private.state", ray_internals.free_resources, {}),
        ("ray._private.state", ray_internals.autoscaler_groups, None),
        ("ray.experimental.internal_kv", ray_internals.monitor_status, {}),
        ("ray._private.authentication.authentication_utils", ray_internals.asks_for_token, True),
        ("ray.train.v2._internal.execution.context", ray_internals.is_preempted, False),
        (
            "ray.train.v2._internal.callbacks.datasets",
            lambda: ray_internals.without_datasets(CALLBACKS),
            CALLBACKS,
        ),
    ],
)
def test_without_it_a_study_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    ask: Callable[[], Any],
    otherwise: Any,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray_internals._missed.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert ask() == otherwise == ask()
    (told,) = caplog.messages
    assert told.startswith("Ray has no ")


def test_workers_import_from_where_the_driver_does() -> None:
    assert import_path() == ["here"]
