"""A command of this process: what it says, its exit code, and how long it takes."""

from __future__ import annotations

import gzip
import io
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.data import labelled_rows, task_rows, write_csv, write_jsonl, write_parquet
from tests.helpers.models import tiny_model_folder

PATIENCE = 10.0
"""Seconds that a command may take."""
STUDIES = {
    "small.yaml": """\
name: small
model:
  path: ./model
data:
  train: ./train.jsonl
  prompt: "{question}"
  response: "{answer}"
dataset_sizes: [8, 16]
arms: [full, lift]
search:
  trials: 2
  replicates: 1
""",
    "full.yaml": """\
# Every section.
name: full
seed: 3
model: {path: ./model, attention: sdpa, dropout: 0.0}
task: sequence-classification
data:
  train: [./train.csv]
  test_size: 10
  validation_size: 0.1
  text: text
  label: kind
  retention: general
dataset_sizes:
  - 8
  - 16
arms:
  full:
  lift: {groups: [2, 2], order: top-down, always_active: [head]}
comparison: tokens
search:
  space: ./space.yaml
  overrides: {learning_rate: {high: 1.0e-3}, lift: {group_lr_decay: 0.9}}
  trials: 2
  replicates: 2
  sampler: sobol
  pruner: median
confirm: {seeds: 1}
training: &training
  epochs: 1.5
  min_steps: 10
  global_batch_size: 8
  sequence_length: 64
  betas: [0.9, 0.99]
  schedule: cosine
  patience: 3
zero: {stage: 1, overrides: {zero_optimization: {overlap_comm: true}}}
resources: {workers_per_trial: 2, cpus_per_worker: 0.5, gpus_per_worker: auto}
prefix_cache: {enabled: auto, max_gib: 1.5}
budget: {device_hours: 1.0, wall_hours: 2}
storage: {results: ./out/full}
decision: {dataset_size: 16, rho: 0.01}
tracking: [tensorboard]
""",
}
SPACE = """\
name: mine
shared:
  learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}
  warmup_ratio: {choices: [0.0, 0.1]}
  max_grad_norm: 1.0
  weight_decay: {low: 0.0, high: 0.1, step: 0.05}
full:
lift:
  sweeps: {low: 1, high: 2}
  group_lr_decay: {low: 0.5, high: 1.0}
"""

DATA = """\
name: data
model: {{path: ./model}}
task: {task}
data: {{train: ./{file}, {columns}, retention: null}}
dataset_sizes: [8, 16]
arms: [full, lift]
search: {{trials: 2, replicates: 1}}
"""
CAUSAL = 'prompt: "{question}", response: "{answer}"'
DATA_FILES = {
    "a.jsonl": ("causal-lm", CAUSAL),
    "a.json": ("causal-lm", CAUSAL),
    "a.csv": ("causal-lm", CAUSAL),
    "a.parquet": ("causal-lm", CAUSAL),
    "a.jsonl.gz": ("causal-lm", CAUSAL),
    "a.txt": ("causal-lm", "text: text"),
    "b.tsv": ("sequence-classification", "text: text, label: kind"),
    "b.jsonl": ("sequence-classification", "text: text, label: kind"),
}
"""A data file of each format, the task and the columns that are read of it."""


@dataclass(frozen=True)
class Answer:
    """Of a command that was asked in this process."""

    code: int
    text: str
    seconds: float

    @property
    def fault(self) -> str | None:
        """What is wrong with it: bad input gets one message and exit code 2, soon."""
        if "Traceback" in self.text or self.code not in (0, 2):
            return f"exit code {self.code}: {self.text[-2000:]}"
        if self.code == 2 and "rror: " not in self.text:
            return f"no message: {self.text[-2000:]}"
        if any(ord(c) < 32 and c not in "\n\t" for c in self.text):
            return f"control characters: {self.text[-2000:]!r}"
        return f"{self.seconds:.1f} s" if self.seconds > PATIENCE else None


class TooSlow(BaseException):
    """Not an Exception: nobody is to take it for a failure of his own."""


def write_project(folder: Path) -> None:
    """A model, data of several formats, a search space and the good study files."""
    tiny_model_folder(folder).rename(folder / "model")
    write_jsonl(folder / "train.jsonl", task_rows(60))
    write_csv(folder / "train.csv", labelled_rows(60))
    write_parquet(folder / "train.parquet", task_rows(60))
    (folder / "space.yaml").write_text(SPACE)
    for name, text in STUDIES.items():
        (folder / name).write_text(text)


def write_data_files(folder: Path) -> dict[str, bytes]:
    """`DATA_FILES`, well formed, and a study file of the same stem and suffix for each; returns
    what they hold."""
    rows, labelled = task_rows(60), labelled_rows(60)
    write_jsonl(folder / "a.jsonl", rows)
    (folder / "a.json").write_text(json.dumps(rows))
    write_csv(folder / "a.csv", rows)
    write_parquet(folder / "a.parquet", rows)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes()))
    (folder / "a.txt").write_text("\n".join(row["question"] for row in rows))
    write_csv(folder / "b.tsv", labelled, "\t")
    write_jsonl(folder / "b.jsonl", labelled)
    for file, (task, columns) in DATA_FILES.items():
        text = DATA.format(file=file, task=task, columns=columns)
        (folder / f"{file}.yaml").write_text(text)
    return {file: (folder / file).read_bytes() for file in DATA_FILES}


def command(*arguments: str) -> Answer:
    """`study` with these arguments, in this process and folder."""
    from study.cli import main

    return answered(main, *arguments)


def answered(call: Callable[[], Any], *arguments: str, guarded: bool = False) -> Answer:
    """What a call that may end with SystemExit, as `main` does, prints; cut off after a while.

    Args:
        guarded: with the guard that `main` puts on the streams.
    """
    from study.cli.output import guarded_streams

    kept = sys.argv, sys.stdout, sys.stderr
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    sys.argv, sys.stdout, sys.stderr = ["study", *arguments], stream, stream
    before = signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE)
    began, code = time.monotonic(), 0
    try:
        with guarded_streams() if guarded else nullcontext():
            call()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        seconds = time.monotonic() - began
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.argv, sys.stdout, sys.stderr = kept
    raw = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return Answer(code, raw.decode("utf-8", "backslashreplace"), seconds)


def _too_slow(*_: object) -> None:
    raise TooSlow
