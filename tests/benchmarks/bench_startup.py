"""What starting costs: the command line, and what each worker of a trial imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 5
COMMANDS = {
    "python": "pass",
    "study --help": "import sys; sys.argv[1:] = ['--help']; from study.cli import main; main()",
    "load_config": "from study.config.load import load_config",
    "plan and store": "from study import open_study",
    "torch": "import torch",
    "a worker's imports": "from study.training.engine.ops import prepare_deepspeed; "
    "prepare_deepspeed(); import study.training.loop",
}


def seconds(code: str) -> float:
    """Median wall seconds of a fresh interpreter."""
    timed = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        timed.append(time.perf_counter() - before)
    return statistics.median(timed)


def main() -> None:
    timed = {name: seconds(code) for name, code in COMMANDS.items()}
    for name, value in timed.items():
        print(f"{name:<20} {value:7.3f} s  {value / timed['python']:7.1f} x python")


if __name__ == "__main__":
    main()
