"""The long form of the protocol's proof: `python -m tests.simulation.sequential --studies 150`."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.paired import Row, as_table, judged
from tests.simulation.tuned import WORLDS, Tuned, tune


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the status is 1 if anything misses its target."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.sequential", description=__doc__
    )
    parser.add_argument("--studies", type=int, default=150, help="tuned, per world")
    parser.add_argument("--sequences", type=int, default=20_000, help="of rounds, per difference")
    parser.add_argument("--rounds", type=int, help="planned, instead of what the noise asks for")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--world", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    options = parser.parse_args(argv)
    found: dict[str, list[Row]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for name in options.world:
            began = time.perf_counter()
            studies = list(pool.map(partial(_tuned, name), range(options.studies), chunksize=5))
            found[name] = judged(WORLDS[name], studies, options.sequences, rounds=options.rounds)
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(as_table(found))
    return int(not all(row.passes(3.0) for rows in found.values() for row in rows))


def _tuned(name: str, seed: int) -> Tuned:
    return tune(WORLDS[name], seed)


if __name__ == "__main__":
    raise SystemExit(main())
