"""Other tools' own code, fetched from the package registry without what they depend on.

Their requirements exclude the versions that this project pins, so they cannot be installed beside
it; the modules that define their options need little of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def fetch(folder: Path, *requirements: str) -> Path:
    """A folder with the packages, unmodified and without dependencies."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--target", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def python(script: str, *arguments: str, packages: Path, cwd: Path, **environment: str) -> str:
    """What a script prints in a Python process of its own that has `packages`."""
    path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
