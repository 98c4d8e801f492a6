"""Whether workers on different nodes reach one another: a real meeting of two processes."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.orchestration.cluster.network import interface_of, use_interface
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.nodes import Node

MEET_SECONDS = 10.0
"""For two processes to find each other; on a network that lets them it takes milliseconds."""
_START_SECONDS = 90.0
"""For a node to start a process and import torch there."""


def check_reach(nodes: Sequence[Node], interface: str | None) -> Finding:
    """Let a process on each node meet one on the next, as the workers of a trial would: through
    gloo, over the same interface.

    Args:
        nodes: those that hold workers, at least two.
        interface: `resources.network_interface`.
    """
    meetings = {
        reference: pair
        for pair in pairwise(nodes)
        for reference in _meet_on(*pair, interface=interface)
    }
    deadline = time.monotonic() + _START_SECONDS + MEET_SECONDS
    while meetings:
        ready, _ = ray.wait(list(meetings), timeout=max(0.0, deadline - time.monotonic()))
        reference = ready[0] if ready else next(iter(meetings))
        first, second = meetings.pop(reference)
        why = _described(reference) if ready else "no answer"
        if why:
            # The side that listens gives up after several times the limit only.
            for other in (reference, *meetings):
                ray.cancel(other, force=True)
            return Finding(
                f"{_named(first)} and {_named(second)} do not reach each other: {why}",
                Status.FAIL,
                "Let the nodes reach each other on all TCP ports, or set "
                "resources.network_interface to the interface of the network they share.",
            )
    over = interface or "the interfaces of their Ray addresses"
    return Finding(f"{len(nodes)} nodes reach each other over {over}")


def _meet_on(first: Node, second: Node, *, interface: str | None) -> list[Any]:
    """Results of both sides."""
    place = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(_free_port)
    port = place.options(scheduling_strategy=_pinned(first)).remote()
    task = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(meet)
    return [
        task.options(scheduling_strategy=_pinned(node)).remote(
            rank, first.address, port, node.address, interface, MEET_SECONDS
        )
        for rank, node in enumerate((first, second))
    ]


def _pinned(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.node_id, soft=False)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def meet(
    rank: int, host: str, port: int, own: str, interface: str | None, limit_seconds: float
) -> str:
    """Join a process group of two and add up a number.

    Args:
        host, port: where rank 0 waits.
        own: the address by which Ray knows this node.

    Returns:
        Why it failed; empty when it did not.
    """
    import torch
    import torch.distributed as dist

    limit = timedelta(seconds=limit_seconds)
    where = f"{own}, {os.environ.get('GLOO_SOCKET_IFNAME') or interface or interface_of(own)}"
    try:
        use_interface(interface, own)
        store = dist.TCPStore(host, port, 2, is_master=rank == 0, timeout=limit)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
        number = torch.ones(1)
        dist.all_reduce(number)
        dist.destroy_process_group()
    except Exception as error:  # torch raises RuntimeErrors and others of its own
        first = next((x for x in str(error).splitlines() if x.strip()), type(error).__name__)
        # Without the source file of gloo's that it names.
        told = re.sub(r"\[[^\]]*\.(cc|h):\d+\] ?", "", first).strip()
        return f"{told[:200]} ({where})"
    return "" if number.item() == 2 else f"1 + 1 gave {number.item():g} ({where})"


def _described(reference: Any) -> str:
    try:
        return str(ray.get(reference))
    except Exception as error:  # whatever Ray raises when a process dies
        return str(error).strip().splitlines()[-1][:200]


def _named(node: Node) -> str:
    return f"{node.name} ({node.address})"
