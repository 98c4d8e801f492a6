"""Whether the cluster can hold the study's trials: now, once it is idle, or once it has grown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.basics.errors import ResourceError
from study.config.load import ResourcesConfig
from study.orchestration.cluster.autoscaler import NodeType, could_fit
from study.orchestration.cluster.cluster import choose_workers, trials_that_fit
from study.orchestration.cluster.workers import Workers
from study.orchestration.preflight.base import Finding, Status, split_remedy


@dataclass(frozen=True)
class Room:
    """What the study gets.

    Attributes:
        workers: the shape of a trial's worker group.
        trials: that run at once on the living nodes; 0 if not even one fits.
    """

    workers: Workers
    trials: int


def check_resources(
    resources: ResourcesConfig,
    nodes: Sequence[Mapping[str, float]],
    available: Sequence[Mapping[str, float]],
    node_types: Sequence[NodeType] | None,
    on_record: str | None = None,
) -> tuple[Finding, Room]:
    """Judge what the study asks for.

    Args:
        nodes: total resources of each living node.
        available: what is free of them now.
        node_types: what an autoscaler can add; empty: there is none; None: not known.
        on_record: see `choose_workers`.

    Raises:
        ResourceError: the GPUs are of several types, or of another one than the study's results.
    """
    all_types = [*nodes, *(kind.resources for kind in node_types or ())]
    workers = choose_workers(resources, all_types, on_record, node_types != ())
    try:
        fitting = trials_that_fit(workers, nodes)
    except ResourceError as error:
        return _too_little(str(error), workers, nodes, node_types), Room(workers, 0)
    wanted = resources.concurrent_trials
    trials = fitting if wanted == "auto" else min(fitting, wanted)
    counted = f"{trials} {'trial' if trials == 1 else 'trials'} at once"
    found = f"{counted} of {_described(workers)} on {_cluster(nodes)}"
    free = _fitting(workers, available)
    if free == 0:
        return Finding(
            f"{found}, but none now: other work holds the cluster.",
            Status.WARN,
            "Wait for it or stop it; `ray status` shows who has what.",
        ), Room(workers, trials)
    return Finding(found), Room(workers, trials)


def _too_little(
    message: str,
    workers: Workers,
    nodes: Sequence[Mapping[str, float]],
    node_types: Sequence[NodeType] | None,
) -> Finding:
    found, remedy = split_remedy(message.removeprefix("resources: "))
    if node_types is None:
        return Finding(
            f"{found} Whether an autoscaler would add nodes could not be known.",
            Status.FAIL,
            f"{remedy} If it would, the study waits for them: `resources.wait_for_nodes_minutes`.",
        )
    if not could_fit(workers, nodes, node_types):
        more = " Nor would all the nodes that the autoscaler may add." if node_types else ""
        return Finding(f"{found}{more}", Status.FAIL, remedy)
    names = ", ".join(kind.name for kind in node_types)
    return Finding(
        f"{found} The autoscaler can add what is missing ({names}).",
        Status.WARN,
        "`study run` asks it for them, and waits for resources.wait_for_nodes_minutes.",
    )


def _fitting(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> int:
    try:
        return trials_that_fit(workers, nodes)
    except ResourceError:
        return 0


def _described(workers: Workers) -> str:
    each = f"{workers.gpus:g} GPU" if workers.gpus else f"{workers.cpus:g} CPU"
    return f"{workers.count} {'worker' if workers.count == 1 else 'workers'} with {each} each"


def _cluster(nodes: Sequence[Mapping[str, float]]) -> str:
    gpus = math.fsum(node.get("GPU", 0) for node in nodes)
    cpus = math.fsum(node.get("CPU", 0) for node in nodes)
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return f"{count} ({cpus:g} CPUs{f', {gpus:g} GPUs' if gpus else ''})"
