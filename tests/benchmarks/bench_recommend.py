"""How long `study recommend` takes, as a process of its own, on a real store of 120 trials.

    python -m tests.benchmarks.bench_recommend [--store FOLDER] [--repeat 5]

Each line is one run of the command: its exit code, wall seconds, and CPU seconds of the process. On
a machine that does nothing else the two are alike; 3 s of wall time is the promise.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from study.basics.fingerprints import model_fingerprint
from study.cli.examples.demo import BASE_MODEL
from tests.helpers.results import DRAWN_FROM, make_config
from tests.helpers.stores import SIZES, finished_study, write_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="keep the store here, and use it if it is there")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.store or Path(scratch) / "store").absolute()
        if not (folder / "study.db").is_file():
            build(folder)
        common = [sys.executable, "-m", "study", "recommend", "--studies", str(folder)]
        model = str(BASE_MODEL)
        questions = {
            "answer": ["--model", model, "--dataset-size", "700"],
            "size far outside": ["--model", model, "--dataset-size", "70000"],
            "another model": ["--model", "owner/other", "--dataset-size", "700"],
        }
        print(f"load average {os.getloadavg()[0]:.1f}")
        for name, options_of in questions.items():
            for _ in range(options.repeat):
                code, wall, cpu = timed([*common, *options_of])
                print(f"{name:<17} exit {code}  {wall:.2f} s wall  {cpu:.2f} s CPU")


def build(folder: Path) -> None:
    """A finished study of 120 trials of the demo's base model."""
    began = time.monotonic()
    config = make_config(
        sizes=SIZES, trials=3, overrides=DRAWN_FROM, storage={"results": str(folder)}
    )
    results = finished_study(config, model=model_fingerprint(str(BASE_MODEL)) or "")
    write_store(results)
    print(f"built a store of {len(results.trials)} trials in {time.monotonic() - began:.0f} s")


def timed(command: list[str]) -> tuple[int, float, float]:
    """(exit code, wall seconds, CPU seconds) of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
