"""The long form: `python -m tests.simulation --studies 4000 --scenario all --jobs 2`."""

from __future__ import annotations

import os

# Small matrices: more threads only take each other's time. NumPy reads it when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat

from tests.simulation.reading import Reading, read
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.studies import simulate
from tests.simulation.tally import Found, Tally, as_table, judged

CHUNK = 100
Batch = tuple[list[tuple[float, ...]], list[Reading]]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the status is 1 if anything misses its target."""
    options = _options(argv)
    names = list(SCENARIOS) if options.scenario == ["all"] else options.scenario
    rows: list[tuple[str, int, Found]] = []
    with ProcessPoolExecutor(options.jobs, initializer=gc.disable) as pool:
        for name in names:
            began = time.perf_counter()
            slack = 0.0 if SCENARIOS[name].most is None else 3.0
            tally = _run(pool, name, options)
            label = name if options.replicates is None else f"{name}, M = {options.replicates}"
            rows += [(label, len(tally.readings), found) for found in judged(tally, slack)]
            took = time.perf_counter() - began
            print(f"{label}: {took:.0f} s", file=sys.stderr, flush=True)
            if options.progress:
                print(as_table([r for r in rows if r[0] == label]), file=sys.stderr, flush=True)
    print(as_table(rows))
    return int(any(found.passes is False for _, _, found in rows))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="per scenario")
    parser.add_argument(
        "--scenario", nargs="+", default=["all"], choices=["all", *SCENARIOS], metavar="NAME"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--replicates", type=int, help="instead of the scenario's")
    parser.add_argument("--progress", action="store_true", help="each scenario's table at once")
    parser.add_argument("--list", action="store_true", help="print the scenarios' names")
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(SCENARIOS))
        raise SystemExit
    return options


def _run(pool: ProcessPoolExecutor, name: str, options: argparse.Namespace) -> Tally:
    studies = min(options.studies, SCENARIOS[name].most or options.studies)
    chunks = [range(k, min(k + CHUNK, studies)) for k in range(0, studies, CHUNK)]
    batches = list(pool.map(_batch, chunks, repeat(name), repeat(options.replicates)))
    truths = [truth for batch in batches for truth in batch[0]]
    readings = [reading for batch in batches for reading in batch[1]]
    return Tally(_scenario(name, options.replicates), truths, readings)


_CHANGED: dict[tuple[str, int | None], Scenario] = {}


def _scenario(name: str, replicates: int | None) -> Scenario:
    """One object per process, since what is known of a scenario is kept by it."""
    if (name, replicates) not in _CHANGED:
        scenario = SCENARIOS[name]
        if replicates is not None:
            scenario = replace(scenario, plan=replace(scenario.plan, replicates=replicates))
        _CHANGED[name, replicates] = scenario
    return _CHANGED[name, replicates]


def _batch(studies: range, name: str, replicates: int | None) -> Batch:
    scenario = _scenario(name, replicates)
    sizes = scenario.plan.asked
    truths, readings = [], []
    for world, results in simulate(scenario, studies):
        truths.append(tuple(world.difference(size) for size in sizes))
        readings.append(read(results, sizes))
    gc.collect()  # it is off in between: records hold no cycles, and there are many
    return truths, readings


if __name__ == "__main__":
    raise SystemExit(main())
