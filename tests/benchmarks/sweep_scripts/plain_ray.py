"""Ray's guide "Hyperparameter Tuning with Ray Tune" for Ray Train V2, with a DeepSpeed worker.

A Tune trial builds a `TorchTrainer` and calls `fit`. As the guide advises: a resource of its own
for the trials' drivers, so that they take no CPU from the workers, and `max_concurrent_trials`
from what the machine holds. No checkpoints, which the guide's workers write: they would only cost
more. Everything else is Ray's default.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

from tests.benchmarks.sweep_scripts.work import WORKERS, Report, Work, collate

DRIVERS = "TRAIN_DRIVER_RESOURCE"


def train_fn_per_worker(train_loop_config: dict[str, Any]) -> None:
    import deepspeed
    import torch
    from torch.utils.data import DataLoader, DistributedSampler
    from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup, set_seed

    work = Work.read(Path(train_loop_config["folder"]))
    set_seed(0)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=train_loop_config["learning_rate"], weight_decay=0.0, fused=True
    )
    warmup = work.warmup_steps(train_loop_config)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=get_cosine_schedule_with_warmup(optimizer, warmup, work.steps),
        config={
            "train_batch_size": work.batch,
            "train_micro_batch_size_per_gpu": work.batch // world_size,
            "gradient_clipping": train_loop_config["max_grad_norm"],
            "zero_optimization": {"stage": 2},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    train, validation = work.examples("train"), work.examples("validation")[rank::world_size]
    sampler = DistributedSampler(train, world_size, rank, seed=0)
    size = work.batch // world_size
    batches = DataLoader(train, size, sampler=sampler, collate_fn=collate, drop_last=True)
    held = DataLoader(validation, size, collate_fn=collate)

    def validation_loss() -> float:
        engine.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in held:
                count = int((batch["labels"][:, 1:] != -100).sum())
                sums += torch.tensor([float(engine(**batch).loss) * count, count])
        torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1])

    step, epoch, seconds = 0, 0, 0.0
    while step < work.steps:
        sampler.set_epoch(epoch)
        epoch += 1
        before = time.perf_counter()
        for batch in batches:
            engine.train()
            engine.backward(engine(**batch).loss)
            engine.step()
            step += 1
            if step % work.evaluation_interval == 0:
                loss = validation_loss()
                # The report's own time is overhead.
                seconds += time.perf_counter() - before
                ray.train.report({"loss": loss, "training_seconds": seconds})
                before = time.perf_counter()
            if step == work.steps:
                break
        seconds += time.perf_counter() - before


def train_driver_fn(config: dict[str, Any]) -> None:
    trainer = ray.train.torch.TorchTrainer(
        train_fn_per_worker,
        train_loop_config=config["train_loop_config"],
        scaling_config=ray.train.ScalingConfig(num_workers=WORKERS),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={ray.tune.get_context().get_trial_id()}",
            callbacks=[TuneReportCallback()],
            storage_path=config["storage_path"],
        ),
    )
    trainer.fit()


class Clock(ray.tune.Callback):
    """Notes when the sweep begins to hand out trials."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def setup(self, **info: Any) -> None:
        self._report.starts()


def main() -> None:
    folder = Path(sys.argv[1])
    work, report = Work.read(folder), Report()
    # An address, for an unrelated cluster on this machine must not be joined.
    ray.init(address="local", resources={DRIVERS: 1})
    storage = str(folder / "ray_results")
    trials = [{"folder": str(folder), **values} for values in work.hyperparameters]
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(train_driver_fn, {DRIVERS: 0.01}),
        param_space={
            "storage_path": storage,
            "train_loop_config": ray.tune.grid_search(trials),
        },
        run_config=ray.tune.RunConfig(
            name="sweep", storage_path=storage, callbacks=[Clock(report)], verbose=1
        ),
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=1),
    )
    results = tuner.fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed: {results.errors[0]}")
    for result in results:
        report.training_seconds.append(result.metrics["training_seconds"])
        report.losses.append(min(result.metrics_dataframe["loss"]))
    report.note = "no checkpoints"
    report.write(folder)


if __name__ == "__main__":
    main()
