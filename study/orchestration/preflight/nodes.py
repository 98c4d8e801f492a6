"""Asks the running Ray cluster: each node through a task pinned to it, and Ray about itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.basics.surroundings import ray_address
from study.orchestration.cluster import cluster
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.nodes_judged import Silent
from study.orchestration.ray_internals import asks_for_token, free_resources

T = TypeVar("T")

ANSWER_TIMEOUT_SECONDS = 120.0
"""Importing the package on a busy node takes its time."""
DASHBOARD_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Node:
    """A living node.

    Attributes:
        name: for people, different for every node.
        node_id: Ray's.
        address: IP address.
        resources: total, by Ray's names.
    """

    name: str
    node_id: str
    address: str
    resources: dict[str, float]


def list_nodes() -> list[Node]:
    """The living nodes of the running cluster."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    return [
        Node(
            name=_name(node, alone=hosts[node["NodeManagerHostname"]] == 1),
            node_id=node["NodeID"],
            address=node["NodeManagerAddress"],
            resources=dict(node["Resources"]),
        )
        for node in alive
    ]


def _name(node: Mapping[str, Any], *, alone: bool) -> str:
    host = str(node["NodeManagerHostname"])
    return host if alone else f"{host} ({node['NodeID'][:6]})"


def available_resources(nodes: Sequence[Node]) -> list[dict[str, float]]:
    """What nobody holds now, in the order of `nodes`."""
    free = free_resources()
    # A node that has just come up is not listed yet.
    return [dict(free.get(node.node_id, node.resources)) for node in nodes]


def on_every_node(
    nodes: Sequence[Node],
    function: Callable[..., T],
    *arguments: Any,
    timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
) -> dict[str, T | Silent]:
    """`function(*arguments)` on each node at the same time, in a process of its own that ends
    afterwards, so that no later worker inherits what it set or imported."""
    task = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(function)
    asked = {
        node.name: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(*arguments)
        for node in nodes
    }
    ready, _ = ray.wait(
        list(asked.values()), num_returns=len(asked), timeout=timeout_seconds, fetch_local=True
    )
    found: dict[str, T | Silent] = {}
    for name, reference in asked.items():
        if reference not in ready:
            ray.cancel(reference, force=True)
            found[name] = Silent(f"no answer within {timeout_seconds:.0f} s.")
            continue
        try:
            found[name] = ray.get(reference)
        except Exception as error:  # whatever the task raised, or Ray when its process died
            found[name] = Silent(_last_line(error))
    return found


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def check_dashboard() -> Finding:
    """Whether Ray's State API answers, which frees what a stopped trial held."""
    from ray.util.state import list_placement_groups

    address = cluster.address()
    # One that has just been started may not listen yet.
    deadline = time.monotonic() + DASHBOARD_TIMEOUT_SECONDS
    while True:
        try:
            list_placement_groups(address, limit=1, timeout=15)
            return Finding("its State API answers")
        except Exception as error:  # it raises whatever its HTTP client does
            reason = _last_line(error)[:120]
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return Finding(
        f"Ray's dashboard process does not answer ({reason}): what a stopped trial holds would "
        "never be freed.",
        Status.FAIL,
        "Install ray[default] and start the head with ray start --head --include-dashboard=true.",
    )


def check_token(nodes: Sequence[Node]) -> Finding:
    """Whether others on the network can use the cluster."""
    if asks_for_token():
        return Finding("Ray asks for a token")
    joined = ray_address() is not None or len({node.address for node in nodes}) > 1
    if not joined:
        return Finding("off; the cluster is this machine's own")
    return Finding(
        "Ray asks for no token: whoever reaches the cluster's ports can run code on it.",
        Status.WARN,
        "Run `ray get-auth-token --generate`, copy ~/.ray/auth_token to every node, and start "
        "Ray and the study with RAY_AUTH_MODE=token.",
    )
