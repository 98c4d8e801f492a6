"""The one sweep that every program runs, and what each reports of it.

A program's process is handed a folder: `Work.read` says what to do there, `Report.write` leaves
what was done. `prepare` fills the folder. Tokenisation and collation are for the scripts that
have none of their own.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import torch

WORKERS = 2
SEQUENCE_LENGTH = 48
IGNORED = -100


@dataclass(frozen=True)
class Work:
    """What to run.

    Attributes:
        folder: the program's own; everything it writes goes here.
        hyperparameters: one entry per trial: ``learning_rate``, ``warmup_ratio``,
            ``max_grad_norm``.
        steps: optimizer steps of a trial.
        evaluations: of a trial, evenly spaced.
        batch: examples per step, over all workers.
        train: training examples.
    """

    folder: Path
    hyperparameters: list[dict[str, float]]
    steps: int
    evaluations: int
    batch: int
    train: int

    @property
    def model(self) -> Path:
        return self.folder / "tiny-llama-0"

    @property
    def study_file(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def evaluation_interval(self) -> int:
        """Steps between two evaluations."""
        return self.steps // self.evaluations

    def warmup_steps(self, hyperparameters: dict[str, float]) -> int:
        return round(hyperparameters["warmup_ratio"] * self.steps)

    def write(self) -> None:
        values = dataclasses.asdict(self)
        del values["folder"]  # it may be copied
        (self.folder / "work.json").write_text(json.dumps(values))

    @classmethod
    def read(cls, folder: Path) -> Work:
        return cls(folder, **json.loads((folder / "work.json").read_text()))

    def write_study(self, trials: int, **resources: Any) -> None:
        """The sweep as a study of one arm, one size and no confirm runs.

        Args:
            resources: more keys of that section.
        """
        data = {name: f"{name}.jsonl" for name in ("train", "validation", "test")}
        study = {
            "name": "sweep",
            "model": {"path": f"./{self.model.name}"},
            "data": data | {"prompt": "{question}", "response": "{answer}", "retention": None},
            "dataset_sizes": self.train,
            "arms": ["full"],
            "search": {
                "space": {"shared": {
                    "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
                    "warmup_ratio": {"low": 0.0, "high": 0.2},
                    "max_grad_norm": {"low": 0.3, "high": 3.0, "log": True},
                }},
                "trials": trials,
                "replicates": 1,
            },
            "confirm": {"seeds": 0},
            "training": {
                "steps": self.steps,
                "global_batch_size": self.batch,
                "sequence_length": SEQUENCE_LENGTH,
                "evaluations": self.evaluations,
            },
            "zero": {"stage": 2},
            # One trial at a time in every program: what is not training is then overhead.
            "resources": {
                "workers_per_trial": WORKERS, "gpus_per_worker": 0, "concurrent_trials": 1,
            } | resources,
        }  # fmt: skip
        self.study_file.write_text(yaml.safe_dump(study, sort_keys=False))

    def examples(self, split: str) -> list[dict[str, list[int]]]:
        """Tokenised examples; the loss is on the answer."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model)
        found = []
        for line in (self.folder / f"{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            prompt = tokenizer(row["question"], add_special_tokens=False).input_ids
            answer = tokenizer(row["answer"], add_special_tokens=False).input_ids
            ids = [*prompt, *answer, tokenizer.eos_token_id]
            labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
            found.append({"input_ids": ids[:SEQUENCE_LENGTH], "labels": labels[:SEQUENCE_LENGTH]})
        return found


def collate(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest."""
    import torch

    width = max(len(e["input_ids"]) for e in examples)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for example in examples:
        size = len(example["input_ids"])
        batch["input_ids"].append(example["input_ids"] + [0] * (width - size))
        batch["attention_mask"].append([1] * size + [0] * (width - size))
        batch["labels"].append(example["labels"] + [IGNORED] * (width - size))
    return {name: torch.tensor(rows) for name, rows in batch.items()}


@dataclass
class Report:
    """What a program's process leaves.

    Attributes:
        first_trial: when the sweep began to hand out trials, seconds since the epoch.
        training_seconds: per trial, forward, backward, step and evaluations on rank 0.
        losses: per trial, lowest validation loss.
        note: what a reader of the figures must know.
    """

    first_trial: float = 0.0
    training_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    note: str = ""

    def starts(self) -> None:
        """Call it as a trial is handed out; the first time counts."""
        self.first_trial = self.first_trial or time.time()

    def write(self, folder: Path) -> None:
        (folder / "report.json").write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Report:
        return cls(**json.loads((folder / "report.json").read_text()))
