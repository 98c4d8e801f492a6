"""Runs a study from its file to its last confirm trial."""

from __future__ import annotations

import functools
import logging
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from filelock import FileLock, Timeout

from study.config import StudyConfig
from study.errors import StoreError, StudyError, TrialError
from study.orchestration import cluster
from study.orchestration.ledger import Ledger, Observer
from study.orchestration.prepare import Prepared, prepare_study
from study.paths import StudyPaths
from study.plan import with_cost_ratio
from study.results import StudyResults
from study.store import StudyStore

log = logging.getLogger(__name__)


def run_study(config: StudyConfig, observer: Observer) -> StudyResults:
    """Run what is missing of a study; everything already on record stays.

    Raises:
        UserError: the study cannot run as it is written.
        StoreError: its results belong to another study file, or another driver runs it now.
        KeyboardInterrupt: Ctrl-C; what has finished is on record.
    """
    paths = StudyPaths(config.results_dir)
    store = StudyStore.create(config)
    lock = FileLock(paths.lock)
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"Study {config.name!r} is already running (lock: {paths.lock}). Watch it with "
            "`study status`, or stop that run first."
        ) from None
    started, before = time.time(), store.info("seconds", 0.0)
    try:
        observer.message("Preparing data and model")
        prepared = prepare_study(config, store.info("cost_ratio"))
        _keep_facts(store, prepared)
        _run(config, store, prepared, observer)
    finally:
        store.set_info("seconds", before + time.time() - started)
        lock.release()
    return store.results()


def _keep_facts(store: StudyStore, prepared: Prepared) -> None:
    known = store.data
    changed = known is not None and known.fingerprint != prepared.data.fingerprint
    if changed and store.has_results:
        raise StoreError(
            f"The data of study {store.config.name!r} have changed since its first trials. Give "
            "the new study another name, or restore the files."
        )
    store.set_info("data", prepared.data.to_dict())
    store.set_info("num_blocks", prepared.plan.model.num_blocks)
    store.set_info("notes", list(prepared.warnings))


def _run(config: StudyConfig, store: StudyStore, prepared: Prepared, observer: Observer) -> None:
    plan = prepared.plan
    observer.planned(plan, store.results().trials)
    if store.base is not None and Ledger(plan, store, observer, 0).is_done:
        observer.message("Every trial of this study is already on record")
        return
    cluster.set_environment()
    # Ray, Tune and Train warn about their own deprecations on import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        from study.orchestration import worker_group
    observer.message("Starting Ray")
    try:
        cluster.start_ray()
        nodes = cluster.living_nodes()
        workers = cluster.choose_workers(config.resources, nodes)
        fitting = cluster.trials_that_fit(workers, nodes)
        payload = {
            "config": config.to_dict(),
            "data_dir": str(StudyPaths(config.results_dir).data),
            "results_dir": str(config.results_dir),
            "cpus_per_worker": workers.cpus,
        }
        if store.base is None:
            observer.message("Measuring the base model, and what a step costs in each arm")
            _measure_baseline(config, store, payload, workers)
            plan = with_cost_ratio(plan, store.info("cost_ratio"))
            observer.planned(plan, store.results().trials)
        wanted = config.resources.concurrent_trials
        concurrent = fitting if wanted == "auto" else min(fitting, wanted)
        ledger = Ledger(plan, store, observer, concurrent)
        _tune(ledger, payload, workers, worker_group.trial_trainable, config)
    finally:
        ray.shutdown()


def _measure_baseline(
    config: StudyConfig, store: StudyStore, payload: dict[str, Any], workers: Any
) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    from study.orchestration.worker_group import baseline_worker, failure_reason, run_job

    try:
        # In a thread: in the main one Train takes over Ctrl-C, and keeps it when it is done.
        job = ThreadPoolExecutor(1).submit(
            run_job, baseline_worker, "baseline", payload, workers, config.results_dir
        )
        found = job.result()
    except TrainingFailedError as error:
        path = StudyPaths(config.results_dir).trial_log("baseline")
        raise TrialError(
            f"The base model could not be evaluated: {failure_reason(error)} Log: {path}"
        ) from error
    store.set_info("model_parameters", found["model_parameters"])
    store.set_info("cost_ratio", found["cost_ratio"])
    store.set_info("base", found["base"])


def _tune(
    ledger: Ledger,
    payload: dict[str, Any],
    workers: Any,
    trainable: Any,
    config: StudyConfig,
) -> None:
    from ray import tune
    from ray.tune.error import TuneError

    from study.orchestration.scheduler import PrunerScheduler
    from study.orchestration.searcher import PlanSearcher
    from study.orchestration.worker_group import failure_reason

    searcher = PlanSearcher(ledger)
    bound = functools.partial(
        trainable, payload=payload, workers=workers, results_dir=config.results_dir
    )
    tuner = tune.Tuner(
        # The workers have a placement group of their own; the trial's driver must not take a CPU
        # from them, and Tune refuses a request for nothing.
        tune.with_resources(bound, {"CPU": 0, "memory": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PrunerScheduler(ledger, searcher),
            num_samples=-1,
            # A trial's driver process takes seconds to start, so the next trial takes it over.
            # Not after a pruner's stop: its thread would live on beside the next trial's.
            reuse_actors=config.search.pruner == "none",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(StudyPaths(config.results_dir).ray),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        # What the searcher or scheduler raised (a full disk, a lost database) comes wrapped.
        raise StudyError(
            f"The study stopped: {failure_reason(error)} What has finished is on record; mend "
            f"the cause and run the study again. Log: {StudyPaths(config.results_dir).log}"
        ) from error
