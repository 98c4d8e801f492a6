"""The Ray cluster: start or join it, and see whether a trial fits before asking for it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence

from study.config import ResourcesConfig
from study.errors import ResourceError
from study.orchestration.worker_group import Workers

# Read when Ray is imported or started, so they are set before either. A user's own value stays.
_ENVIRONMENT = {
    # Workers' reports are polled at this interval; the default of 2 s is longer than the gap
    # between two evaluations of a small trial.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Tune's CSV, JSON and TensorBoard files would repeat what the store holds.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is the runner's: Tune's handler ends the run as if it were finished.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Every result is an evaluation, and results carry no metric of Tune's.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # A thread that still speaks to Ray when the study ends must not start another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


def set_environment() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine.

    Raises:
        ResourceError: it cannot be joined or started.
    """
    import ray

    if ray.is_initialized():
        return
    local = "RAY_ADDRESS" not in os.environ
    if local:
        # A process per Ray Train job that watches for the preemption of spot machines.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # "local", not None: a half-dead cluster of an earlier run must not be joined.
    address = os.environ.get("RAY_ADDRESS", "local")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.WARNING,
                # Without the dashboard's process Train cannot free what a stopped trial held,
                # and the next ones wait for ever.
                include_dashboard=True if local else None,
                dashboard_host="127.0.0.1",
                # A cluster's processes do not inherit what was set here.
                runtime_env=None if local else {"env_vars": dict(_ENVIRONMENT)},
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = (
            "See the study log that was named at the start."
            if local
            else "Check RAY_ADDRESS and that the cluster runs, or unset it to use this machine."
        )
        raise ResourceError(f"Ray does not start at {address}: {reason} {remedy}") from error


def address() -> str:
    """Of the cluster that this process is connected to, ``host:port``.

    Ray's State API, if told no address, asks whichever cluster this machine mentioned last.
    """
    import ray

    return str(ray.get_runtime_context().gcs_address)


def choose_workers(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> Workers:
    """The worker group's shape, with `gpus_per_worker: auto` decided by what the nodes have.

    Args:
        nodes: total resources of each living node, by Ray's names (``CPU``, ``GPU``).
    """
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    return Workers(resources.workers_per_trial, resources.cpus_per_worker, float(gpus))


def trials_that_fit(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many worker groups the nodes hold at once, workers never spanning a node's remainder.

    Raises:
        ResourceError: not even one.
    """
    slots = sum(_slots(workers, node) for node in nodes)
    if slots < workers.count:
        have = ", ".join(
            f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes
        )
        raise ResourceError(
            f"resources: a trial needs {workers.count} workers with {workers.cpus:g} CPUs and "
            f"{workers.gpus:g} GPUs each; the cluster's nodes have {have or 'nothing'}, room for "
            f"{slots}. Lower resources.workers_per_trial, cpus_per_worker or gpus_per_worker, or "
            "add nodes."
        )
    return slots // workers.count


def _slots(workers: Workers, node: Mapping[str, float]) -> int:
    by_cpu = int(node.get("CPU", 0) / workers.cpus + 1e-9)
    return min(by_cpu, int(node.get("GPU", 0) / workers.gpus)) if workers.gpus else by_cpu


def living_nodes() -> list[dict[str, float]]:
    """Total resources of each living node of the running cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
