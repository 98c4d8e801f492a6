"""The cluster's autoscaler: what it may add, and how it is shown what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.basics.errors import ResourceError
from study.basics.surroundings import ray_address
from study.orchestration.cluster.cluster import trials_that_fit
from study.orchestration.cluster.workers import Workers
from study.orchestration.ray_internals import autoscaler_groups, monitor_status

_MOST_NODES = 1024
"""Nodes of one type that are looked at where the autoscaler sets no limit."""


@dataclass(frozen=True)
class NodeType:
    """What an autoscaler can add.

    Attributes:
        resources: of one node, by Ray's names.
        count: nodes of this type at most; None: no limit.
    """

    name: str
    resources: Mapping[str, float]
    count: int | None


def autoscaler_node_types() -> tuple[NodeType, ...] | None:
    """What the cluster's autoscaler may add; empty: it has none; None: it does not tell."""
    if ray_address() is None:
        return ()
    groups = autoscaler_groups()
    if groups is not None:
        return tuple(
            NodeType(g.name, dict(g.resources), None if g.max_count < 0 else g.max_count)
            for g in groups
        )
    return () if is_read_only(monitor_status()) else None


def is_read_only(status: Mapping[str, Any]) -> bool:
    """Whether Ray's monitor merely reports nodes that people started: it then calls each node's
    type after the node."""
    active = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    return bool(active) and all(name.startswith("node_") for name in active)


def could_fit(
    workers: Workers, nodes: Sequence[Mapping[str, float]], node_types: Sequence[NodeType]
) -> bool:
    """Whether a trial would fit once the autoscaler has added all it may.

    Args:
        nodes: total resources of each living node.
    """
    grown = [*nodes]
    for kind in node_types:
        count = _MOST_NODES if kind.count is None else kind.count
        grown += [kind.resources] * min(count, _MOST_NODES)
    try:
        # Few autoscalers know what type of GPU their nodes will have.
        trials_that_fit(replace(workers, accelerator_type=None), grown)
    except ResourceError:
        return False
    return True


class Demand:
    """Shows the autoscaler trials that wait for room, as placement groups that are pending.

    Other than `ray.autoscaler.sdk.request_resources` they are gone with the driver, however it
    ends, and no machine is kept for nobody.
    """

    MOST = 16
    """Pending at once: so many trials the cluster grows by in one step."""

    def __init__(self) -> None:
        self._pending: list[Any] = []

    def show(self, workers: Workers, trials: int) -> None:
        """Have so many trials' worth pending. What has got its place by now is given up: the
        trials themselves need it."""
        from ray.util import placement_group, remove_placement_group

        kept = [group for group in self._pending[:trials] if not group.wait(0)]
        for group in [group for group in self._pending if group not in kept]:
            remove_placement_group(group)
            self._pending.remove(group)
        # A type that the autoscaler does not know it would never add.
        bundle = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
        for _ in range(min(trials, self.MOST) - len(self._pending)):
            self._pending.append(placement_group([bundle] * workers.count, strategy="PACK"))
