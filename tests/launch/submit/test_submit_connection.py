"""One clear message for each way in which a cluster cannot be spoken to."""

from __future__ import annotations

import json
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from study.basics.errors import UserError
from study.launch.submit.connection import check_versions, connect
from tests.helpers.commands import study


@contextmanager
def server(answers: dict[str, Any]) -> Iterator[str]:
    """An HTTP server with these JSON answers by path, and an HTML page everywhere else. Keeps the
    tokens it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.headers.get("Authorization"))
            found = answers.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode() if found else b"<html>hello</html>")

        def log_message(self, *_: object) -> None: ...

    told = answers.setdefault("told", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def dashboard(ray_version: str, python: str, mode: str = "disabled") -> dict[str, Any]:
    """The answers of a Ray dashboard of some version."""
    return {
        "/api/authentication_mode": {"authentication_mode": mode},
        "/api/version": {"version": "4", "ray_version": ray_version},
        "/api/v0/cluster_metadata": {"data": {"pythonVersion": python}},
    }


def test_the_same_versions_pass() -> None:
    with server(dashboard(ray.__version__, platform.python_version())) as url:
        check_versions(connect(url))


@pytest.mark.parametrize(
    ("ray_version", "python", "told"),
    [
        ("2.59.1", platform.python_version(), "Ray 2.59.1 there"),
        (ray.__version__, "3.9.1", "Python 3.9 there"),
        ("2.59.1", "3.9.1", "Ray 2.59.1 there.* and Python 3.9 there"),
    ],
)
def test_other_versions_are_named(ray_version: str, python: str, told: str) -> None:
    with (
        server(dashboard(ray_version, python)) as url,
        pytest.raises(UserError, match=f"{told}.*Nothing was submitted"),
    ):
        check_versions(connect(url))


def test_nothing_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match=r"No answer from .*connection refused.*8265"):
        connect(f"127.0.0.1:{port}")


def test_something_else_listens_there() -> None:
    with server({}) as url, pytest.raises(UserError, match="not as the dashboard"):
        connect(url)


@pytest.mark.parametrize("address", ["ray://head:10001", "http://:8265", "ftp://head"])
def test_an_address_of_another_kind(address: str) -> None:
    with pytest.raises(UserError, match="no http address"):
        connect(address)


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"No answer from http://no-such-host\.invalid:8265"):
        connect("no-such-host.invalid:8265")


def test_without_a_token_the_places_to_put_it_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    answers = dashboard(ray.__version__, platform.python_version(), mode="token")
    with server(answers) as url, pytest.raises(UserError, match=r"RAY_AUTH_TOKEN.*none"):
        connect(url)


def test_only_a_cluster_that_asks_is_told_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for mode, expected in (("disabled", {None}), ("token", {None, "Bearer hunter2"})):
        answers = dashboard(ray.__version__, platform.python_version(), mode=mode)
        with server(answers) as url:
            connect(url)
        assert set(answers["told"]) == expected


def test_the_address_given_is_the_address_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    with server(dashboard(ray.__version__, platform.python_version())) as url:
        assert connect(url).get_address() == url


@pytest.mark.parametrize(
    ("status", "driver_exit_code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", None, 1)],
)
def test_following_returns_what_the_job_did_and_1_where_it_did_not_get_that_far(
    tmp_path: Path, status: str, driver_exit_code: int | None, expected: int
) -> None:
    job = {
        "type": "SUBMISSION", "submission_id": "mine-1", "status": status,
        "metadata": {"study": "mine"}, "start_time": 1000, "end_time": 9000,
        "driver_exit_code": driver_exit_code, "message": "why",
    }  # fmt: skip
    answers = dashboard(ray.__version__, platform.python_version())
    answers |= {"/api/jobs/mine-1": job, "/api/jobs/mine-1/logs": {"logs": "a line\n"}}
    with server(answers) as url:
        done = study("logs", "mine-1", "--address", url, "--follow", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (expected, "a line\n"), done.stderr
    assert f"{status.lower()} after 8 s" in done.stderr
