"""What undisturbed studies find on this machine alone, for comparison."""

from __future__ import annotations

from typing import Any

import pytest

from study.protocol.records import TrialState
from tests.orchestration.chaos import all_facts
from tests.orchestration.nodes import Run, make_study


def finish_here(folders: pytest.TempPathFactory, name: str, **resources: Any) -> dict[str, Any]:
    # One after the other: one worker group to start.
    path = make_study(folders, name, concurrent_trials=1, **resources)
    run = Run(path, None)
    assert run.end() == 0, run.output
    found = all_facts(path)
    assert {f["state"] for f in found.values()} == {TrialState.COMPLETE.value}
    return found


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One worker per trial."""
    return finish_here(tmp_path_factory, "narrow")


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two workers per trial."""
    return finish_here(tmp_path_factory, "wide", workers_per_trial=2)
