"""Hugging Face `Trainer.hyperparameter_search` with its Ray backend.

Each trial trains in Tune's own process, with as many threads as the others have workers: the
Ray backend starts no further ones. It has no DeepSpeed either: the search wants it in the driver,
where the trainer is made, and then fails in the trial's process, where `Trainer` resets the state
of an `Accelerator` that was never made there (transformers 5.23, accelerate 1.15).
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import ray
import ray.tune
import torch
from ray.tune.search import BasicVariantGenerator
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from tests.benchmarks.sweep_scripts.work import WORKERS, Report, Work, collate


class TimedTrainer(Trainer):
    """Adds the seconds spent training so far to what each evaluation reports."""

    seconds = 0.0

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        before = time.perf_counter()
        metrics = super().evaluate(*args, **options)
        self.seconds += time.perf_counter() - before
        return metrics | {"eval_training_seconds": self.seconds}


class StepClock(TrainerCallback):
    """Books every step on its trainer."""

    def __init__(self) -> None:
        self.trainer: TimedTrainer | None = None
        self._begun = 0.0

    def on_step_begin(self, *_args: Any, **_options: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, *_args: Any, **_options: Any) -> None:
        assert self.trainer is not None
        self.trainer.seconds += time.perf_counter() - self._begun


class SweepClock(ray.tune.Callback):
    """Notes when the sweep begins to hand out trials."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def setup(self, **info: Any) -> None:
        self._report.starts()


def make_trainer(work: Work) -> TimedTrainer:
    arguments = TrainingArguments(
        output_dir=str(work.folder / "trainer"), use_cpu=True,
        per_device_train_batch_size=work.batch, per_device_eval_batch_size=work.batch,
        max_steps=work.steps, eval_strategy="steps", eval_steps=work.evaluation_interval,
        lr_scheduler_type="cosine", optim="adamw_torch_fused", prediction_loss_only=True,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip
    clock = StepClock()

    def model_init() -> Any:
        return AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)

    trainer = TimedTrainer(
        model_init=model_init, args=arguments, data_collator=collate,
        train_dataset=work.examples("train"), eval_dataset=work.examples("validation"),
        callbacks=[clock],
    )  # fmt: skip
    clock.trainer = trainer
    return trainer


def search(work: Work, report: Report) -> None:
    points = [
        {
            "learning_rate": values["learning_rate"],
            "warmup_steps": work.warmup_steps(values),
            "max_grad_norm": values["max_grad_norm"],
        }
        for values in work.hyperparameters
    ]
    best = make_trainer(work).hyperparameter_search(
        hp_space=lambda _: {name: ray.tune.uniform(0, 1) for name in points[0]},
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=len(points),
        direction="minimize",
        backend="ray",
        resources_per_trial={"cpu": WORKERS},
        search_alg=BasicVariantGenerator(points_to_evaluate=points, max_concurrent=1),
        callbacks=[SweepClock(report)],
        storage_path=str(work.folder / "ray_results"),
        name="sweep",
    )
    analysis = best.run_summary
    for trial in analysis.trials:
        report.training_seconds.append(trial.last_result["eval_training_seconds"])
        report.losses.append(min(analysis.trial_dataframes[trial.trial_id]["eval_loss"]))


def main() -> None:
    folder = Path(sys.argv[1])
    work, report = Work.read(folder), Report()
    warnings.simplefilter("ignore", FutureWarning)
    # An address, for an unrelated cluster on this machine must not be joined.
    ray.init(address="local")
    search(work, report)
    report.note = "one process per trial, no DeepSpeed (the Ray backend fails with it)"
    report.write(folder)


if __name__ == "__main__":
    main()
