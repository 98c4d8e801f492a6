"""The cluster's autoscaler: what it may add, and how it is shown what waits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.basics.errors import ResourceError
from study.basics.surroundings import ray_address
from study.orchestration.cluster.cluster import trials_that_fit
from study.orchestration.cluster.workers import Workers

_BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where Ray's cluster launcher leaves its file on the head node."""
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
    """What the cluster's autoscaler may add; empty: it has none; None: that cannot be known."""
    from ray._private import ray_constants
    from ray._private.state import state
    from ray.experimental.internal_kv import _internal_kv_get

    if ray_address() is None:
        return ()
    config = state.get_cluster_config()
    if config is not None:
        return tuple(
            NodeType(group.name, dict(group.resources), _limit(group.max_count))
            for group in config.node_group_configs
        )
    bootstrap = _BOOTSTRAP_CONFIG.expanduser()
    if bootstrap.is_file():
        return read_bootstrap_config(bootstrap.read_text())
    status = _internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
    return () if status and is_read_only(json.loads(status)) else None


def _limit(max_count: int) -> int | None:
    return None if max_count < 0 else max_count


def read_bootstrap_config(text: str) -> tuple[NodeType, ...] | None:
    """Node types of a cluster launcher's file; None if it is none."""
    import yaml

    config = yaml.safe_load(text)
    types = config.get("available_node_types") if isinstance(config, Mapping) else None
    if not isinstance(types, Mapping):
        return None
    most = int(config.get("max_workers", 2))
    return tuple(
        NodeType(str(name), dict(kind.get("resources") or {}), int(kind.get("max_workers", most)))
        for name, kind in types.items()
        if name != config.get("head_node_type")
    )


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
