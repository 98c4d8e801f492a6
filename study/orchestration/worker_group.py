"""Ray Train jobs: what a trial's workers run, and the thin Tune trainable around it."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from study.config import StudyConfig
from study.paths import StudyPaths
from study.records import Measurement, TrialOutcome, TrialSpec


@dataclass(frozen=True)
class Workers:
    """The shape of a trial's worker group."""

    count: int
    cpus: float
    gpus: float

    def scaling(self) -> ScalingConfig:
        resources = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return ScalingConfig(
            num_workers=self.count, use_gpu=self.gpus > 0, resources_per_worker=resources
        )


class _Trainer(TorchTrainer):
    """TorchTrainer without the actor that would serve Ray Data's datasets: there are none here,
    and starting it costs each trial about two seconds of CPU."""

    def _create_default_callbacks(self) -> list[Any]:
        from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if not isinstance(c, DatasetsCallback)]


def run_job(
    worker: Callable[[dict[str, Any]], Any],
    name: str,
    payload: dict[str, Any],
    workers: Workers,
    results_dir: Path,
    callbacks: list[Any] | None = None,
) -> Any:
    """Run `worker(payload)` on a fresh worker group and return what rank 0 returned.

    Raises:
        TrainingFailedError: a worker raised or died, or the group could not be started.
    """
    trainer = _Trainer(
        worker,
        train_loop_config=payload,
        scaling_config=workers.scaling(),
        run_config=RunConfig(
            name=name,
            storage_path=str(StudyPaths(results_dir).ray),
            # The ledger counts and owns retries; Train's default is to retry for ever.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            callbacks=callbacks or [],
        ),
    )
    return trainer.fit().return_value


def trial_trainable(
    tune_config: dict[str, Any], *, payload: dict[str, Any], workers: Workers, results_dir: Path
) -> dict[str, Any]:
    """What a Tune trial runs: one Ray Train job; its outcome is the trial's last result.

    Never raises: an exception here would cost Tune's actor and the worker's own words.
    """
    # Not at the top: this module is imported by every worker and controller of every trial, and
    # Tune would cost each of them most of a second.
    from ray.tune.integration.ray_train import TuneReportCallback

    spec = TrialSpec.from_dict(json.loads(tune_config["spec"]))
    try:
        outcome = run_job(
            trial_worker,
            tune_config["job"],
            payload | {"spec": spec.to_dict()},
            workers,
            results_dir,
            [TuneReportCallback()],
        )
    except TrainingFailedError as error:
        outcome = TrialOutcome(status="error", reason=failure_reason(error)).to_dict()
    return {"outcome": json.dumps(outcome)}


def failure_reason(error: BaseException) -> str:
    """One line for people: the exception that a worker raised, not Ray's wrapping of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _looks_raised(line)]
    return (raised[-1] if raised else lines[-1] if lines else repr(error))[:500]


def _looks_raised(line: str) -> bool:
    name, colon, _ = line.partition(":")
    return (
        bool(colon)
        and name.replace(".", "").replace("_", "").isalnum()
        and (name.endswith(("Error", "Exception", "Interrupt", "Exit")))
    )


def trial_worker(payload: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker: one trial, its evaluations reported as they come."""
    from study.training.loop import run_trial

    config, placement, data = _set_up(payload)
    spec = TrialSpec.from_dict(payload["spec"])

    def report(measurement: Measurement) -> None:
        # Every rank reports: it is a barrier. Rank 0's metrics are the ones that travel on.
        ray.train.report({"measurement": json.dumps(measurement.to_dict())})

    with _logging_to(StudyPaths(Path(payload["results_dir"])).trial_log(spec.trial_id), placement):
        return run_trial(config, spec, data, placement, report).to_dict()


def baseline_worker(payload: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker: the base model's losses and the arms' cost ratio."""
    from study.training.baseline import measure_baseline

    config, placement, data = _set_up(payload)
    with _logging_to(StudyPaths(Path(payload["results_dir"])).trial_log("baseline"), placement):
        baseline = measure_baseline(config, data, placement)
    return {
        "base": baseline.base.to_dict(),
        "model_parameters": baseline.model_parameters,
        "cost_ratio": baseline.cost_ratio,
    }


def _set_up(payload: dict[str, Any]) -> tuple[StudyConfig, Any, Any]:
    import torch

    from study.training.ops import prepare_ops
    from study.training.placement import Placement
    from study.training.tokenised import StudyData

    prepare_ops()
    config = StudyConfig.from_dict(payload["config"])
    context = ray.train.get_context()
    if not torch.cuda.is_available():
        # Ray gives a worker its CPUs; torch would take every core of the machine.
        torch.set_num_threads(max(1, int(payload["cpus_per_worker"])))
    placement = Placement(
        ray.train.torch.get_device(), context.get_world_rank(), context.get_world_size()
    )
    return config, placement, StudyData.open(Path(payload["data_dir"]))


class _logging_to:
    """Send this process's logging, and the traceback of what ends it, to a file."""

    def __init__(self, path: Path, placement: Any) -> None:
        self._path = path.with_suffix(f".rank{placement.rank}.log") if placement.rank else path

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self._path, mode="w")
        self._handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        )
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(logging.INFO)
        root.info("process %d started", os.getpid())

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        root = logging.getLogger()
        if error is not None:
            root.error("".join(traceback.format_exception(error)))
        root.removeHandler(self._handler)
        self._handler.close()
