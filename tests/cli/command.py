"""The command line as a user runs it, in a terminal of 80 columns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def study(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "study", *arguments],
        cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip


def too_wide(text: str, folder: Path) -> list[str]:
    """Lines that are, other than those that hold a path."""
    return [line for line in text.splitlines() if len(line) > 80 and str(folder) not in line]
