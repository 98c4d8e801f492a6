"""`--probe`: a real Ray Train job on the study's own workers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import TrainingFailedError

from study.basics.errors import StoreError, TrialError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.config.load import StudyConfig
from study.orchestration.cluster.workers import Workers
from study.orchestration.groups.failures import failure_reason
from study.orchestration.groups.worker_group import run_job
from study.protocol.records import StepCosts
from study.protocol.results import published_config
from study.store.published import fetch_data, share_data
from study.strategies.base import Phase
from study.training.data.tokenised import version_folder


@dataclass(frozen=True)
class Probed:
    """What a job found.

    Attributes:
        peak_bytes: per arm, largest over ranks.
        costs: of the steps; None if it was not asked for.
        startup_seconds: before a trial's first phase: starting workers, loading the model.
    """

    peak_bytes: dict[str, int]
    costs: StepCosts | None
    startup_seconds: float


def run_probe(
    config: StudyConfig,
    workers: Workers,
    phases: Sequence[tuple[str, Phase]],
    data: str,
    *,
    costs: bool,
) -> Probed:
    """One step of each phase; see `study.training.rehearsal.rehearse`. Leaves no files.

    Args:
        data: fingerprint of those to take it on.

    Raises:
        TrialError: a worker failed; says why.
    """
    name = f"check-{uuid.uuid4().hex[:8]}"
    paths = StudyPaths(config.results_dir)
    payload: dict[str, Any] = {
        "config": published_config(config),
        "cpus_per_worker": workers.cpus,
        "phases": [[arm, phase.name, list(phase.parameters)] for arm, phase in phases],
        "scratch": name,
        "data": data,
        "costs": costs,
    }
    # Not where the study's own data are: it may be running, with other data.
    data_url = config.results_url and f"{config.results_url}/{name}"
    payload["data_url"] = data_url
    if data_url:
        share_data(data_url, version_folder(paths.data, data))
    began = time.monotonic()
    try:
        # In a thread: in the main one Train takes over Ctrl-C, and keeps it when it is done.
        job = ThreadPoolExecutor(1).submit(
            run_job, probe_worker, name, payload, workers, config.results_dir
        )
        found = job.result()
    except TrainingFailedError as error:
        raise TrialError(failure_reason(error)) from error
    finally:
        if data_url:
            with contextlib.suppress(StoreError):
                RemoteFolder(data_url).remove("")
        shutil.rmtree(paths.ray / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # a study's own files are there
            paths.ray.rmdir()
    waited = time.monotonic() - began - found["seconds"]
    return Probed(
        peak_bytes=found["peak_bytes"],
        costs=StepCosts.from_dict(found["costs"]) if found["costs"] else None,
        startup_seconds=max(0.0, waited) + found["load_seconds"],
    )


def run_probe_by_arm(
    config: StudyConfig,
    workers: Workers,
    phases: Sequence[tuple[str, Phase]],
    data: str,
    *,
    costs: bool,
) -> tuple[Probed | None, dict[str, str]]:
    """`run_probe`; where it fails, each arm on its own, so that one that fits is told from one
    that does not.

    Returns:
        What was found, None if nothing; and why per arm that failed.
    """
    try:
        return run_probe(config, workers, phases, data, costs=costs), {}
    except TrialError as error:
        if len(phases) == 1:
            return None, {phases[0][0]: _plain(error)}
    peaks: dict[str, int] = {}
    failed: dict[str, str] = {}
    startup = 0.0
    for arm, phase in phases:
        try:
            found = run_probe(config, workers, [(arm, phase)], data, costs=False)
            peaks |= found.peak_bytes
            startup = found.startup_seconds
        except TrialError as error:
            failed[arm] = _plain(error)
    if not failed:  # then it was timing the steps
        failed = {"steps": "every arm takes a step, but timing them failed; see the log."}
    return (Probed(peaks, None, startup) if peaks else None), failed


def _plain(error: TrialError) -> str:
    """Without the exception's module and name."""
    text = str(error)
    name, colon, rest = text.partition(": ")
    return rest if colon and " " not in name else text


@contextlib.contextmanager
def _data(config: StudyConfig, payload: dict[str, Any]) -> Iterator[Path]:
    """The tokenised data's folder on this node."""
    if payload["data_url"] is None:
        yield StudyPaths(config.results_dir).data
        return
    with tempfile.TemporaryDirectory() as scratch:
        fetch_data(payload["data_url"], Path(scratch))
        yield Path(scratch)


def probe_worker(payload: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker."""
    import torch

    from study.training.data.tokenised import StudyData
    from study.training.engine.ops import prepare_deepspeed
    from study.training.placement import Placement
    from study.training.rehearsal import rehearse

    device = ray.train.torch.get_device()
    prepare_deepspeed(device.type)
    if device.type == "cpu":
        # As a trial's workers: Ray gives them CPUs, torch would take every core of the machine.
        torch.set_num_threads(max(1, int(payload["cpus_per_worker"])))
    context = ray.train.get_context()
    config = StudyConfig.from_dict(payload["config"])
    with _data(config, payload) as data:
        found = rehearse(
            config,
            StudyData.open(data, payload["data"]),
            Placement(device, context.get_world_rank(), context.get_world_size()),
            [(arm, Phase(name, tuple(names), 1)) for arm, name, names in payload["phases"]],
            scratch=payload["scratch"],
            costs=payload["costs"],
        )
    return {
        "peak_bytes": found.peak_bytes,
        "costs": found.costs.to_dict() if found.costs else None,
        "load_seconds": found.load_seconds,
        "seconds": found.seconds,
    }
