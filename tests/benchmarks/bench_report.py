"""Seconds that a report of a large study takes, and how large its files are."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from study.report import write_report
from tests.helpers.results import make_results

SIZES, REPLICATES, CONFIRM = (64, 128, 256, 512, 1024), 5, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="about how many [2000]")
    wanted: int = parser.parse_args().trials
    per_replicate = max(1, round(wanted / (2 * len(SIZES) * REPLICATES)) - CONFIRM)
    results = make_results(
        sizes=SIZES, replicates=REPLICATES, trials=per_replicate, confirm_seeds=CONFIRM
    )
    with tempfile.TemporaryDirectory() as folder:
        started, worked = time.perf_counter(), time.process_time()
        paths = write_report(results, folder, dataset_sizes=(100, 700))
        took, worked = time.perf_counter() - started, time.process_time() - worked
        print(f"{len(results.trials):,} trials: {took:.2f} s, of CPU time {worked:.2f} s")
        for path in (paths.html, paths.markdown, paths.json, *paths.downloads):
            print(f"{path.name:12} {_megabytes(path):.2f} MB")
        pictures = [p for p in (Path(folder) / "figures").iterdir() if p.suffix == ".svg"]
        print(f"figures      {sum(map(_megabytes, pictures)):.2f} MB as SVG")


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


if __name__ == "__main__":
    main()
