"""Makes the sweep's model, data and trials, and compiles what the workers need.

Its last line of output is DeepSpeed's folder of compiled ops.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

# Whatever the first program imports is read from the disk once for all of them.
import ray.train.torch
import ray.tune  # noqa: F401

from study.config.load import load_config
from study.protocol.plan import ModelFacts, plan_trials
from tests.benchmarks.sweep_scripts.work import Work
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import BLOCKS, tiny_model_folder

VALIDATION = TEST = 32
"""Examples."""


def prepare(work: Work, trials: int) -> None:
    """Write model, data and `work.json`, with the trials that the study will run."""
    tiny_model_folder(work.folder)
    files = {"train": (work.train, 0), "validation": (VALIDATION, 10**6), "test": (TEST, 10**7)}
    for name, (count, start) in files.items():
        write_jsonl(work.folder / f"{name}.jsonl", task_rows(count, start))
    work.write_study(trials)
    plan = plan_trials(load_config(work.study_file), ModelFacts(BLOCKS))
    dataclasses.replace(work, hyperparameters=[s.hyperparameters for s in plan.search]).write()


def main() -> None:
    folder, *numbers = sys.argv[1:]
    trials, steps, evaluations, batch, train = map(int, numbers)
    prepare(Work(Path(folder), [], steps, evaluations, batch, train), trials)


if __name__ == "__main__":
    main()
