"""The command line as a user runs it, in a terminal of 80 columns.

Its processes are forked from one that has everything imported, which saves each of them seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.helpers.forked import METHOD

TERMINAL = {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}


class Command:
    """`python -m study` while it runs, in a session of its own; what it prints is in files."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        one_stream: bool = True,
    ) -> None:
        """
        Args:
            environment: in place of this process's own.
            one_stream: errors go where the output goes.
        """
        self.arguments = arguments
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("stdin", "stdout", "stderr")]
        self._files[0].write_text(stdin)
        self._files[1].touch()
        if one_stream:
            self._files[2] = self._files[1]
        self._process = multiprocessing.get_context(METHOD).Process(
            target=_run,
            args=(arguments, cwd, TERMINAL | {**(environment or os.environ)}, self._files),
        )
        self._process.start()

    @property
    def output(self) -> str:
        return self._files[1].read_text()

    @property
    def errors(self) -> str:
        return self._files[2].read_text()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def until(self, condition: Callable[[], object], seconds: float = 400) -> None:
        """Wait for something while it runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.is_alive(), f"it has ended:\n{self.output}"
            assert time.monotonic() < deadline, f"in vain:\n{self.output}"
            time.sleep(0.05)

    def wait_for(self, text: str) -> None:
        """Until it has printed `text`."""
        self.until(lambda: text in self.output)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 600) -> int:
        """Its exit code; it is killed after so many seconds."""
        self._process.join(seconds)
        if self._process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"{self.arguments} hangs:\n{self.output}")
        assert self._process.exitcode is not None
        return self._process.exitcode

    def completed(self, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """What is known of it once it has ended."""
        code = self.wait(seconds)
        return subprocess.CompletedProcess(self.arguments, code, self.output, self.errors)


def study(
    *arguments: str, cwd: Path, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = Command(*arguments, cwd=cwd, stdin=stdin, environment=environment, one_stream=False)
    return command.completed()


def _run(
    arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str], files: list[Path]
) -> None:
    from study.cli import main

    os.setsid()
    # Whatever started pytest may have had it ignored, as a shell does for what runs beside it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, 1) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.argv = ["study", *arguments]
    main()


def too_wide(text: str, folder: Path) -> list[str]:
    """Lines that are, other than those that hold a path."""
    return [line for line in text.splitlines() if len(line) > 80 and str(folder) not in line]
