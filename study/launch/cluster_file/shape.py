"""How many machines a study wants, and how large each must be. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from study.basics.errors import ResourceError
from study.config.models import ResourcesConfig

USUAL_GPUS_PER_NODE = 8
"""No more GPUs are asked for on one machine unless the user says so."""
USUAL_CPUS_PER_NODE = 64
"""The same for the CPUs of workers that train without a GPU."""
_DRIVER_CPUS = 1
"""Each node keeps a CPU for what Ray and the trials' drivers need."""


@dataclass(frozen=True)
class ClusterShape:
    """Machines of one kind that hold a study's workers.

    Attributes:
        nodes: machines, a head that holds no worker not among them.
        nodes_per_trial: machines without which no trial can start.
        trials: how many run at once when all machines are up.
        cpus_per_node, gpus_per_node: what each machine must have for the study.
        worker_cpus: what Ray may hand out of a machine's CPUs; the rest is its own.
    """

    nodes: int
    nodes_per_trial: int
    trials: int
    cpus_per_node: int
    gpus_per_node: int

    @property
    def worker_cpus(self) -> int:
        return self.cpus_per_node - _DRIVER_CPUS


def cluster_shape(
    resources: ResourcesConfig,
    *,
    nodes: int | None = None,
    gpus_per_node: int | None = None,
    cpus_per_node: int | None = None,
    gpu_counts: Sequence[int] = (),
) -> ClusterShape:
    """The machines that `resources` need.

    Args:
        resources: of the study; ``gpus_per_worker: auto`` is one GPU, unless `gpus_per_node` is 0.
        nodes: machines to use; None: as many as the study's `concurrent_trials` take, and those
            of one trial where that is ``auto``.
        gpus_per_node: None: as many as the workers can use, at most 8.
        cpus_per_node: None: as many as the workers on a node need, and one more.
        gpu_counts: the GPUs that one machine can have, ascending, where only some numbers exist.

    Raises:
        ResourceError: the machines cannot hold one trial.
    """
    gpus = _gpus_per_worker(resources, gpus_per_node)
    cpus = resources.cpus_per_worker
    asked = resources.concurrent_trials
    workers = resources.workers_per_trial * (asked if isinstance(asked, int) else 1)
    if gpus:
        if gpus_per_node is None:
            gpus_per_node = _usual_gpus(workers, gpus, gpu_counts)
        fitting = gpus_per_node * _workers_per_gpu(gpus)
        if cpus_per_node is not None:
            fitting = min(fitting, _workers_by_cpu(cpus_per_node, cpus))
    elif cpus_per_node is None:
        fitting = min(workers, max(1, math.floor(USUAL_CPUS_PER_NODE / cpus)))
    else:
        fitting = _workers_by_cpu(cpus_per_node, cpus)
    if not fitting:
        raise ResourceError(
            f"A node of {gpus_per_node or 0} GPUs and {cpus_per_node or 0} CPUs holds no worker of "
            f"{gpus:g} GPUs and {cpus:g} CPUs. Raise --gpus-per-node or --cpus-per-node, or lower "
            "resources.gpus_per_worker or cpus_per_worker."
        )
    per_trial = math.ceil(resources.workers_per_trial / fitting)
    nodes = math.ceil(workers / fitting) if nodes is None else nodes
    if nodes < per_trial:
        raise ResourceError(
            f"A trial's {resources.workers_per_trial} workers take {per_trial} nodes with "
            f"{fitting} workers each; --nodes is {nodes}. Raise --nodes, --gpus-per-node or "
            "--cpus-per-node, or lower resources.workers_per_trial."
        )
    trials = nodes * fitting // resources.workers_per_trial
    return ClusterShape(
        nodes=nodes,
        nodes_per_trial=per_trial,
        trials=min(trials, asked) if isinstance(asked, int) else trials,
        cpus_per_node=cpus_per_node or math.ceil(fitting * cpus) + _DRIVER_CPUS,
        gpus_per_node=gpus_per_node or 0,
    )


def _gpus_per_worker(resources: ResourcesConfig, gpus_per_node: int | None) -> float:
    if resources.gpus_per_worker != "auto":
        return float(resources.gpus_per_worker)
    return 0.0 if gpus_per_node == 0 else 1.0


def _workers_per_gpu(gpus: float) -> int:
    """Ray never splits a worker's share of a GPU over two of them."""
    return int(1 / gpus + 1e-9)


def _workers_by_cpu(cpus_per_node: int, cpus: float) -> int:
    return max(0, int((cpus_per_node - _DRIVER_CPUS) / cpus + 1e-9))


def _usual_gpus(workers: int, gpus: float, gpu_counts: Sequence[int]) -> int:
    wanted = min(USUAL_GPUS_PER_NODE, math.ceil(workers / _workers_per_gpu(gpus)))
    return next((count for count in gpu_counts if count >= wanted), wanted)
