"""The command line as a user runs it, in a terminal of 80 columns."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.forked import METHOD


def study(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m study` in a process of its own, which has everything imported already."""
    environment = os.environ | {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / stream for stream in ("stdin", "stdout", "stderr")]
        files[0].write_text(stdin)
        process = multiprocessing.get_context(METHOD).Process(
            target=_command, args=(arguments, cwd, environment, files)
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        printed = (path.read_text() for path in files[1:])
        return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _command(
    arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str], files: list[Path]
) -> None:
    from study.cli import main

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.argv = ["study", *arguments]
    main()


def too_wide(text: str, folder: Path) -> list[str]:
    """Lines that are, other than those that hold a path."""
    return [line for line in text.splitlines() if len(line) > 80 and str(folder) not in line]
