"""The final run: one chosen configuration, trained and scored like a confirm trial, its model
kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock, Timeout

from study.basics.errors import DataError, StoreError, StudyError, TrialError
from study.basics.interrupt import PauseOnInterrupt
from study.basics.owned import claim, claim_url
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.basics.text_files import write_text
from study.config.load import StudyConfig
from study.orchestration.cluster import cluster
from study.orchestration.cluster.capacity import find_capacity
from study.orchestration.prepare import prepare_study
from study.orchestration.runner import make_pool, use_prepared
from study.protocol.records import (
    BaseModelRecord,
    DataSummary,
    Measurement,
    OutcomeStatus,
    TrialOutcome,
    TrialSpec,
    base_name,
)
from study.protocol.results import published_config
from study.reuse.recipe import FinalRun, Recipe

if TYPE_CHECKING:  # it imports Ray
    from study.orchestration.groups.pool import WorkerPool

log = logging.getLogger(__name__)

_RECORD, _STARTED = "model.json", "run.json"


class FinalObserver(Protocol):
    """Follows a final run."""

    def message(self, text: str) -> None:
        """Something a person waiting may want to know; from any thread."""

    def started(self, spec: TrialSpec, base: BaseModelRecord) -> None:
        """It is about to train; what it must beat is known."""

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        """It was evaluated."""


def train_final(
    recipe: Recipe,
    results: str,
    observer: FinalObserver,
    dataset_size: int | None = None,
    seed: int | None = None,
) -> FinalRun:
    """Train a chosen configuration, or go on where an earlier call was stopped.

    Args:
        results: folder, or its URL, for everything that the run writes. One that holds a finished
            run of the same recipe gives it back.
        dataset_size: training examples; null: all there are.
        seed: of the run; null: the study's.

    Raises:
        UserError: it cannot run as it is written.
        TrialError: the training failed.
        KeyboardInterrupt: Ctrl-C; the next call goes on.
    """
    config = recipe.config_at(dataset_size or 1, results)
    with _locked(config):
        observer.message("Preparing data and model")
        prepared = prepare_study(config)
        found = prepared.data
        recipe = replace(recipe, num_blocks=prepared.plan.model.num_blocks)
        size = dataset_size or found.pool
        if size > found.pool:
            raise DataError(f"--dataset-size {size}: there are {found.pool} training examples.")
        config = recipe.config_at(size, results)
        spec = recipe.spec_at(size, config.seed if seed is None else seed)
        known = _begin(config, spec, found)
        use_prepared(config, found)
        # Whose a model at a URL is, only this machine's record of the run tells.
        finished = _finished(config) if "base" in known else None
        if finished is None:
            known |= _run(config, spec, known, observer)
            finished = _finished(config)
            assert finished is not None  # the workers wrote it before they said so
    outcome, measurements = finished
    return FinalRun(
        folder=StudyPaths(config.results_dir).model,
        config=config,
        spec=spec,
        measurements=measurements,
        outcome=outcome,
        base=BaseModelRecord.from_dict(known["base"]),
        data=found,
        model_parameters=known["model_parameters"],
        device=known["device"],
    )


@contextmanager
def _locked(config: StudyConfig) -> Iterator[None]:
    claim(config.results_dir, config.results_url)
    if config.results_url is not None:
        claim_url(config.results_url)
    lock = FileLock(StudyPaths(config.results_dir).lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"{config.results_dir}: this run is in progress (lock: {lock.lock_file})."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _begin(config: StudyConfig, spec: TrialSpec, data: DataSummary) -> dict[str, Any]:
    """What is on record of this run; what another one left in its folder is refused."""
    path = config.results_dir / _STARTED
    asked = {"spec": spec.to_dict(), "data": data.fingerprint, "config": _decisive(config)}
    # As JSON has it, where there are no tuples.
    asked = json.loads(json.dumps(asked))
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = asked
        write_text(path, json.dumps(known))
    except ValueError:
        known = {}
    changed = [name for name, value in asked.items() if known.get(name) != value]
    if changed:
        raise StoreError(
            f"{config.results_dir} holds another run (changed: {', '.join(changed)}). Remove the "
            "folder to begin anew, or name another --output."
        )
    return known


def _decisive(config: StudyConfig) -> dict[str, Any]:
    """The settings that the result depends on."""
    sections = published_config(config)
    names = ("model", "task", "data", "arms", "training", "zero")
    return {name: sections[name] for name in names} | {
        "workers_per_trial": config.resources.workers_per_trial
    }


def _finished(config: StudyConfig) -> tuple[TrialOutcome, tuple[Measurement, ...]] | None:
    """The run's outcome and curve, once its model is whole; None before."""
    root, folder = config.results_dir, StudyPaths(config.results_dir).model
    if config.results_url is not None and not (root / _RECORD).is_file():
        remote = RemoteFolder(config.results_url)
        if remote.modified(_RECORD) is not None:
            remote.download(folder.name, folder)
            remote.download(_RECORD, root / _RECORD)
    try:
        found = json.loads((root / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    measurements = tuple(map(Measurement.from_dict, found["measurements"]))
    return TrialOutcome.from_dict(found["outcome"]), measurements


def _run(
    config: StudyConfig, spec: TrialSpec, known: dict[str, Any], observer: FinalObserver
) -> dict[str, Any]:
    """Train it on Ray; the base model's losses, its size and the device."""
    with cluster.ray_running(observer.message):
        capacity = find_capacity(config.resources, known.get("device"), observer.message)
        facts: dict[str, Any] = {k: known[k] for k in ("base", "model_parameters") if k in known}
        facts["device"] = cluster.device_of(capacity.workers)
        with closing(make_pool(config, capacity, known["data"])) as pool:
            if "base" not in facts:
                observer.message(f"Measuring the {base_name(config.task, None)}")
                found = pool.run_baseline()
                facts |= {k: found[k] for k in ("base", "model_parameters")}
            write_text(config.results_dir / _STARTED, json.dumps(known | facts))
            observer.started(spec, BaseModelRecord.from_dict(facts["base"]))
            _train(config, spec, pool, observer)
    return facts


def _train(config: StudyConfig, spec: TrialSpec, pool: WorkerPool, observer: FinalObserver) -> None:
    with PauseOnInterrupt(pool, observer) as pause:
        outcome = pool.run_task(
            spec.trial_id,
            {"spec": spec.to_dict(), "prefix_cache": True, "save_model": True},
            lambda measurement: observer.measured(spec, measurement),
        )
    if outcome is None:
        if pause.requested:
            raise KeyboardInterrupt
        raise StudyError(
            f"The run stopped: {pool.broken or 'it was interrupted.'} Mend the cause and start it "
            "again: it goes on from its checkpoint."
        )
    if outcome["status"] != OutcomeStatus.FINISHED:
        where = StudyPaths(config.results_dir).trial_log(spec.trial_id)
        raise TrialError(f"The run failed: {outcome['reason']} Log: {where}")
