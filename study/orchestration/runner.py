"""Runs a study from its file to its last confirm trial."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from study.basics.errors import StoreError, StudyError, TrialError
from study.basics.fingerprints import is_content, model_fingerprint
from study.basics.interrupt import PauseOnInterrupt
from study.basics.owned import claim, claim_url
from study.basics.paths import StudyPaths
from study.config.load import StudyConfig
from study.config.sources import find_source
from study.config.tracking_needs import check_trackers
from study.orchestration.cluster import cluster
from study.orchestration.cluster.capacity import Capacity, find_capacity
from study.orchestration.ledger.ledger import Ledger
from study.orchestration.observer import Observer, Publishing
from study.orchestration.prepare import Prepared, prepare_known
from study.orchestration.trackers.tracking import tracked
from study.protocol.plan import with_probe
from study.protocol.records import BaseModelRecord, DataSummary, base_name
from study.protocol.results import StudyResults, published_config
from study.protocol.steps import needs_probe, prefix_cache_pays
from study.reuse.warm_start import warm_start_plan
from study.store.published import SharedResults, share_data
from study.store.study_store import StudyStore
from study.training.data.tokenised import use_data

if TYPE_CHECKING:  # it imports Ray
    from study.orchestration.groups.pool import WorkerPool

log = logging.getLogger(__name__)


def run_study(config: StudyConfig, observer: Observer) -> StudyResults:
    """Run what is missing of a study; everything already on record stays.

    Raises:
        UserError: the study cannot run as it is written.
        StoreError: its results belong to another study file, or another driver runs it now.
        KeyboardInterrupt: Ctrl-C; what has finished is on record.
    """
    check_trackers(config.tracking)
    paths = StudyPaths(config.results_dir)
    claim(paths.root, config.results_url)
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"Study {config.name!r} is already running (lock: {paths.lock}). Watch it with "
            "`study status`, or stop that run first."
        ) from None
    try:
        if config.results_url is None:
            store = StudyStore.create(config, observer.message)
            _run_locked(config, store, observer)
        else:
            store = _run_published(config, observer)
    finally:
        lock.release()
    return store.results()


def _run_published(config: StudyConfig, observer: Observer) -> StudyStore:
    """The same where the results folder is a URL."""
    assert config.results_url is not None
    claim_url(config.results_url)
    shared = SharedResults(config, observer.message)
    with shared.claimed():
        shared.pull()
        store = StudyStore.create(config, observer.message)
        publishing = Publishing(observer, lambda: shared.publish(store.results))
        try:
            _run_locked(config, store, publishing)
        except BaseException:
            with suppress(StudyError):  # what ended the study is told, not what followed
                shared.finish(store.results)
            raise
        shared.finish(store.results)
    return store


def _run_locked(config: StudyConfig, store: StudyStore, observer: Observer) -> None:
    with store.session():
        if store.extension:
            observer.message(store.extension)
        observer.message("Preparing data and model")
        prepared = prepare_known(config, store)
        _keep_facts(store, prepared)
        use_prepared(config, prepared.data)
        told = warm_start_plan(prepared.plan)
        if told is not None:
            observer.message(told)
        _run(config, store, prepared, observer)


def _keep_facts(store: StudyStore, prepared: Prepared) -> None:
    known = store.data
    changed = known is not None and known.fingerprint != prepared.data.fingerprint
    if changed and store.has_results:
        raise StoreError(
            f"The data of study {store.config.name!r} have changed since its first trials. Give "
            "the new study another name, or restore the files."
        )
    keep_fingerprints(store)
    store.set_info("data", prepared.data.to_dict())
    model = prepared.plan.model
    store.set_info("num_blocks", model.num_blocks)
    store.set_info("tied", model.tied)
    store.set_info("prefix_cache", model.prefix_cache)
    store.set_info("notes", list(prepared.warnings))
    start = prepared.plan.warm_start
    store.set_info("warm_start", start.to_dict() if store.config.search.warm_start else None)


def use_prepared(config: StudyConfig, data: DataSummary) -> None:
    """Make these data the ones that workers train on, wherever they are. The study's lock is
    held."""
    version = use_data(StudyPaths(config.results_dir).data, data.fingerprint)
    if config.results_url is not None:
        share_data(config.results_url, version)


def keep_fingerprints(store: StudyStore) -> None:
    """What the model and the training files are by content: by that `study recommend` finds the
    study again."""
    model, known = store.config.model, store.info("model_fingerprint")
    found = model_fingerprint(model.path, model.revision)
    if store.has_results and is_content(known) and is_content(found) and known != found:
        raise StoreError(
            f"The model of study {store.config.name!r} has changed since its first trials: "
            f"{model.path}. Give the new study another name, or restore the files."
        )
    store.set_info("model_fingerprint", found or known)
    source = find_source("data.train", store.config.data.train, ())
    store.set_info("train_fingerprint", source.fingerprint())


def _run(config: StudyConfig, store: StudyStore, prepared: Prepared, observer: Observer) -> None:
    with ExitStack() as running:
        pool = None
        if store.base is None:
            pool = running.enter_context(_started(config, store, prepared.data, observer))
            costs = ", and what a step costs in each arm" if needs_probe(config) else ""
            observer.message(f"Measuring the {base_name(config.task, None)}{costs}")
            _measure_baseline(config, store, pool)
        plan = with_probe(prepared.plan, store.probe)
        observer.planned(plan, store.results().trials)
        if pool is not None and not prefix_cache_pays(config, plan.model):
            observer.message(
                "The prefix cache stays off: hidden states are computed here for less than they "
                "are read"
            )
        ledger = Ledger(plan, store, observer, pool.follow(0) if pool else 0)
        if ledger.is_done:
            observer.message("Every trial of this study is already on record")
            return
        if ledger.has_nothing_to_start:  # the budget is used up
            return
        if pool is None:
            pool = running.enter_context(_started(config, store, prepared.data, observer))
        from study.orchestration.trackers.metrics import MeteredObserver  # it imports Ray

        metered = running.enter_context(
            closing(MeteredObserver(observer, plan, store.all_records()))
        )
        ledger.observer = running.enter_context(tracked(metered, config, store.tracking_mark))
        tune_trials(ledger, pool, config)


@contextmanager
def _started(
    config: StudyConfig, store: StudyStore, data: DataSummary, observer: Observer
) -> Iterator[WorkerPool]:
    """Ray with the study's worker groups while the block runs."""
    with cluster.ray_running(observer.message):
        capacity = _find_room(config, store, observer)
        with closing(make_pool(config, capacity, data.fingerprint)) as pool:
            yield pool


def _find_room(config: StudyConfig, store: StudyStore, observer: Observer) -> Capacity:
    """What the cluster holds; what the trials will run on is put on record."""
    on_record = store.info("device") if store.has_results else None
    capacity = find_capacity(config.resources, on_record, observer.message)
    device = cluster.device_of(capacity.workers)
    if device != "GPU" or on_record is None:  # where Ray names no type, what was known stays
        store.set_info("device", device)
    return capacity


def make_pool(
    config: StudyConfig,
    capacity: Capacity,
    data: str,
    worker: Callable[[dict[str, Any]], None] | None = None,
) -> WorkerPool:
    """The study's worker groups, none of them started; Ray runs already.

    Args:
        capacity: of the cluster.
        data: fingerprint of the study's; workers refuse any other.
        worker: what each worker runs instead of `group_worker`.
    """
    from study.orchestration.groups.pool import WorkerPool
    from study.orchestration.groups.worker_group import group_worker

    payload = {
        # Ray's dashboard shows it, and workers never open the database.
        "config": published_config(config),
        "cpus_per_worker": capacity.workers.cpus,
        "data": data,
    }
    reuse = config.resources.reuse_workers
    return WorkerPool(worker or group_worker, payload, config.results_dir, capacity, reuse)


def _measure_baseline(config: StudyConfig, store: StudyStore, pool: WorkerPool) -> None:
    try:
        found = pool.run_baseline()
    except TrialError as error:
        path = StudyPaths(config.results_dir).trial_log("baseline")
        raise TrialError(f"The base model could not be evaluated: {error} Log: {path}") from error
    store.set_info("model_parameters", found["model_parameters"])
    store.set_info("probe", found["probe"])
    store.keep_base(BaseModelRecord.from_dict(found["base"]))


def tune_trials(ledger: Ledger, pool: WorkerPool, config: StudyConfig) -> None:
    """Let Ray Tune run what the ledger hands out, on the pool's groups.

    Raises:
        StudyError: it cannot go on; what has finished is on record.
        KeyboardInterrupt: Ctrl-C; trials are paused.
    """
    from ray import tune
    from ray.tune.error import TuneError

    from study.orchestration.groups.failures import failure_reason
    from study.orchestration.ray_internals import keep_from_tune
    from study.orchestration.tune.driver import Driver
    from study.orchestration.tune.scheduler import PrunerScheduler
    from study.orchestration.tune.searcher import PlanSearcher
    from study.orchestration.tune.trainable import StudyTrial

    keep_from_tune()
    searcher = PlanSearcher(ledger, pool)
    tuner = tune.Tuner(
        # The workers have a placement group of their own; the trial's process must not take a CPU
        # from them, nor be on a node that leaves before the driver's.
        tune.with_resources(StudyTrial, {"CPU": 0, cluster.own_node_resource(): 0.001}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PrunerScheduler(searcher),
            num_samples=-1,
            # A trial's process takes seconds to start, so the next trial takes it over.
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(StudyPaths(config.results_dir).ray),
            verbose=0,
            callbacks=[Driver(searcher)],
            # The workers write checkpoints; Tune's trials have nothing to keep.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with PauseOnInterrupt(pool, ledger.observer) as pause:
        try:
            tuner.fit()
        except TuneError as error:
            # What the searcher or scheduler raised (a full disk, a lost database) comes wrapped.
            raise StudyError(
                f"The study stopped: {failure_reason(error)} What has finished is on record; mend "
                f"the cause and run the study again. Log: {StudyPaths(config.results_dir).log}"
            ) from error
    if pause.requested:
        raise KeyboardInterrupt
    if ledger.is_paused:
        raise StudyError(
            f"The study stopped: {pool.broken or 'its trials were interrupted.'} What has finished "
            "is on record; mend the cause and run the study again. Log: "
            f"{StudyPaths(config.results_dir).log}"
        )
