"""The Ray cluster: start or join it, and see whether a trial fits before asking for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from study.basics import surroundings
from study.basics.errors import ResourceError
from study.config.load import ResourcesConfig
from study.orchestration.cluster.workers import Workers
from study.orchestration.ray_internals import set_import_path

_IN_USE = threading.Lock()
_ACCELERATOR = "accelerator_type:"
"""How Ray names the resource that says what a node's GPUs are."""


class _ImportPath(list[str]):
    """Ray adds the script's folder and the working folder to it, before all others."""

    def extend(self, _: Iterable[str]) -> None:
        """Of what is given when it is made, nothing is hidden."""


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine.

    Raises:
        ResourceError: it cannot be joined or started.
    """
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():
        return
    joined = surroundings.ray_address()
    folder = None
    if joined is None:
        # A process per Ray Train job that watches for the preemption of spot machines.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        surroundings.check_loopback()
        surroundings.own_token()
        folder = surroundings.ray_folder()
    job = JobConfig()
    set_import_path(job, _ImportPath(surroundings.import_path()))
    # "local", not None: a half-dead cluster of an earlier run must not be joined.
    place = joined or "local"
    try:
        with warnings.catch_warnings(), _sigterm_kept(), surroundings.safe_path():
            warnings.simplefilter("ignore")
            ray.init(
                address=place,
                job_config=job,
                log_to_driver=False,
                logging_level=logging.WARNING,
                # Without the dashboard's process Train cannot free what a stopped trial held,
                # and the next ones wait for ever.
                include_dashboard=None if joined else True,
                dashboard_host="127.0.0.1",
                # A cluster's processes do not inherit what was set here.
                runtime_env={"env_vars": surroundings.for_cluster()} if joined else None,
                _temp_dir=folder,
            )
    except Exception as error:  # among others a plain one, with the end of its dashboard's log
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1 if type(error) is Exception else 0].rstrip(".")
        remedy = (
            "Check RAY_ADDRESS and that the cluster runs, or unset it to use this machine."
            if joined
            else "See the study log that was named at the start."
        )
        raise ResourceError(f"Ray does not start at {place}: {reason}. {remedy}") from error
    surroundings.pass_proxy(address().rpartition(":")[0].strip("[]"))


@contextmanager
def ray_running(tell: Callable[[str], None]) -> Iterator[None]:
    """Ray while the block runs, see `start_ray`. Where it ran before, it is left running.

    Raises:
        ResourceError: it cannot be started, or another thread of this process is in such a block.
    """
    if not _IN_USE.acquire(blocking=False):
        raise ResourceError(
            "Another study runs in this process, and would lose its Ray when either ends. Wait for "
            "it, or run this one in a process of its own."
        )
    try:
        with _ray_running(tell):
            yield
    finally:
        _IN_USE.release()


@contextmanager
def _ray_running(tell: Callable[[str], None]) -> Iterator[None]:
    surroundings.set_environment()
    # Ray, Tune and Train warn about their own deprecations on import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
    tell("Starting Ray")
    found = ray.is_initialized()
    try:
        start_ray()
        yield
    finally:
        if not found:
            ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray would have SIGTERM end this process without a word."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def address() -> str:
    """Of the cluster that this process is connected to, ``host:port``.

    Ray's State API, if told no address, asks whichever cluster this machine mentioned last.
    """
    import ray

    return str(ray.get_runtime_context().gcs_address)


def choose_workers(
    resources: ResourcesConfig,
    nodes: Sequence[Mapping[str, float]],
    on_record: str | None = None,
    nodes_may_come: bool = False,
) -> Workers:
    """The worker group's shape, with everything that is ``auto`` decided by what the nodes have.

    A study stays on one type of device: seconds of different ones cannot be compared.

    Args:
        nodes: total resources of each living node, by Ray's names (``CPU``, ``GPU``).
        on_record: `device_of` the workers that the study's results come from, None without any.
        nodes_may_come: those of the type on record may be on their way.

    Raises:
        ResourceError: the GPUs are of several types and none is named, or the results on record
            come from another type.
    """
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        waited_for = nodes_may_come and on_record not in (None, "CPU")
        named = resources.accelerator_type is not None or waited_for
        gpus = 1.0 if named or any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    workers = Workers(
        resources.workers_per_trial,
        resources.cpus_per_worker,
        float(gpus),
        _choose_accelerator(resources, nodes, on_record, nodes_may_come) if gpus else None,
        resources.network_interface,
    )
    device = device_of(workers)
    unnamed = "GPU" in (on_record, device) and "CPU" not in (on_record, device)
    if on_record is not None and device != on_record and not unnamed:
        raise ResourceError(
            f"resources: the trials on record ran on {_device_told(on_record)}, and these would "
            f"run on {_device_told(device)}; what they cost and learn cannot be compared. "
            f"Continue the study on {_device_told(on_record)}, or give the new study another name."
        )
    return workers


def device_of(workers: Workers) -> str:
    """What workers train on, for the study's record: ``CPU``, Ray's name of a type of GPU, or
    ``GPU`` where Ray knows none."""
    if not workers.gpus:
        return "CPU"
    return workers.accelerator_type or "GPU"


def _device_told(device: str) -> str:
    return {"CPU": "CPUs", "GPU": "GPUs"}.get(device, f"{device} GPUs")


def accelerator_type(node: Mapping[str, float]) -> str | None:
    """Ray's name for the type of a node's GPUs; None where there are none or it knows no name."""
    if node.get("GPU", 0) <= 0:
        return None
    names = (name for name in node if name.startswith(_ACCELERATOR))
    return next((name.removeprefix(_ACCELERATOR) for name in names), None)


def _choose_accelerator(
    resources: ResourcesConfig,
    nodes: Sequence[Mapping[str, float]],
    on_record: str | None,
    nodes_may_come: bool,
) -> str | None:
    if resources.accelerator_type is not None:
        return resources.accelerator_type
    found = Counter(kind for node in nodes if (kind := accelerator_type(node)) is not None)
    awaited = nodes_may_come and on_record not in (None, "CPU", "GPU")
    if on_record in found or (awaited and not any(node.get("GPU", 0) >= 1 for node in nodes)):
        return on_record
    if len(found) > 1:
        listed = " and ".join(
            f"{count} {'node' if count == 1 else 'nodes'} with {kind}"
            for kind, count in sorted(found.items())
        )
        raise ResourceError(
            f"resources: the cluster has {listed}; a study runs on one type, for device seconds of "
            "different types cannot be compared. Set resources.accelerator_type to one of them, "
            f"such as {found.most_common(1)[0][0]}."
        )
    return next(iter(found), None)


def trials_that_fit(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many worker groups the nodes hold at once, workers never spanning a node's remainder.

    Raises:
        ResourceError: not even one.
    """
    slots = sum(worker_slots(workers, node) for node in nodes)
    if slots < workers.count:
        have = ", ".join(map(_node_told, nodes)) or "nothing"
        kind = f" ({workers.accelerator_type})" if workers.accelerator_type else ""
        kinds = {accelerator_type(node) for node in nodes}
        wrong = kind and workers.accelerator_type not in kinds and kinds != {None}
        raise ResourceError(
            f"resources: a trial needs {workers.count} workers with {workers.cpus:g} CPUs and "
            f"{workers.gpus:g} GPUs{kind} each; the cluster's nodes have {have}, room for "
            f"{slots}. "
            + ("Change resources.accelerator_type, l" if wrong else "L")
            + "ower resources.workers_per_trial, cpus_per_worker or gpus_per_worker, or add nodes."
        )
    return slots // workers.count


def worker_slots(workers: Workers, node: Mapping[str, float]) -> int:
    """How many workers a node holds."""
    kind = workers.accelerator_type
    if kind is not None and accelerator_type(node) != kind:
        return 0
    by_cpu = int(node.get("CPU", 0) / workers.cpus + 1e-9)
    return min(by_cpu, int(node.get("GPU", 0) / workers.gpus)) if workers.gpus else by_cpu


def may_span_nodes(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether a trial may have workers on more than one node. Ray packs a trial's workers onto as
    few nodes as it can, so never where each node holds a whole number of trials."""
    slots = [found for node in nodes if (found := worker_slots(workers, node))]
    return len(slots) > 1 and any(found % workers.count for found in slots)


def _node_told(node: Mapping[str, float]) -> str:
    kind = accelerator_type(node)
    named = f" ({kind})" if kind else ""
    return f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs{named}"


def own_node_resource() -> str:
    """The name of a resource that only this process' machine has, 1 of it."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == own)
    return next(name for name in resources if name.startswith("node:") and "__" not in name)


def living_nodes() -> list[dict[str, float]]:
    """Total resources of each living node of the running cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
