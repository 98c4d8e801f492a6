"""A real Ray head as somebody else's: its own process, its own token, reached over HTTP alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import psutil

_BIN = Path(sys.executable).parent
_START_SECONDS = 120
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RayHead:
    """``ray start --head`` with token authentication; a context manager.

    Attributes:
        url: of the dashboard.
        token_file: with the cluster's token.
        environment: what a driver joins it by.
        pid: of `ray start`; its Ray processes are in other process groups.
    """

    def __init__(self, cpus: int = 2) -> None:
        # Sockets' paths are short or fail.
        self.folder = Path(tempfile.mkdtemp(prefix="rh", dir="/tmp"))
        self.token_file = self.folder / "token"
        self.token_file.write_text(secrets.token_hex(32))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._cpus, self._gcs = cpus, free_port()
        self.environment = {
            "RAY_ADDRESS": f"127.0.0.1:{self._gcs}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
        }

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
            "PATH": f"{_BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            # As a study sets it where it starts Ray itself.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        }
        self._process = subprocess.Popen(
            [
                str(_BIN / "ray"), "start", "--head", "--block", f"--num-cpus={self._cpus}",
                f"--port={self._gcs}", f"--temp-dir={self.folder}/ray",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}",
                f"--ray-client-server-port={free_port()}", "--min-worker-port=0",
                "--max-worker-port=0", "--dashboard-agent-listen-port=0",
            ],
            env=environment,
            cwd=self.folder,
            stdout=(self.folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_the_test,
        )  # fmt: skip
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        end_at_once(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        """Until the dashboard has an agent, and so takes jobs."""
        request = urllib.request.Request(
            f"{self.url}/api/jobs/",
            headers={"Authorization": f"Bearer {self.token_file.read_text()}"},
        )
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except OSError:
                log = (self.folder / "head.log").read_text()
                assert self._process.poll() is None and time.monotonic() < end, log
                time.sleep(0.5)


def _end_with_the_test() -> None:
    """A test that is killed leaves no Ray behind: the kernel then ends this process too."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_at_once(ray: subprocess.Popen[Any]) -> None:
    """End a blocking `ray start` with all that it started: asked to, it takes half a minute."""
    for process in (*psutil.Process(ray.pid).children(recursive=True), ray):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    ray.wait()
