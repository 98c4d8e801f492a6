"""Over which network interface the workers of a trial on several nodes speak. No Ray in here.

Left alone, gloo takes the interface whose address the host's own name resolves to, which Debian's
`/etc/hosts` makes the loopback, and NCCL the first one that is up and no loopback or Docker bridge.
On a host with several networks either may be one that the other nodes do not reach. The address
by which Ray knows a node is one that they do reach, or the node would not be in the cluster.
"""

from __future__ import annotations

import os
import socket

import psutil

from study.basics.errors import ResourceError


def interfaces() -> dict[str, list[str]]:
    """The host's interfaces by name, each with its IP addresses."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [a.address.partition("%")[0] for a in addresses if a.family in families]
        for name, addresses in psutil.net_if_addrs().items()
    }


def interface_of(address: str) -> str | None:
    """The interface that has an IP address; None where none has it (behind a translation)."""
    return next((name for name, found in interfaces().items() if address in found), None)


def use_interface(wanted: str | None, address: str) -> None:
    """Make gloo and NCCL use an interface in this process, from their next process group on.

    Args:
        wanted: its name; None: the one that has `address`, where nobody has chosen one by the
            libraries' own environment variables.

    Raises:
        ResourceError: this host has no such interface.
    """
    found = wanted or interface_of(address)
    if found is None:
        return
    if found not in interfaces():
        raise ResourceError(
            f"resources.network_interface: {socket.gethostname()} has no interface {found}, but "
            f"{', '.join(sorted(interfaces()))}. Name one that every node has, or leave it out."
        )
    # To NCCL a name is the beginning of one unless an equals sign precedes it.
    for variable, value in (("GLOO_SOCKET_IFNAME", found), ("NCCL_SOCKET_IFNAME", f"={found}")):
        if wanted is not None:
            os.environ[variable] = value
        else:
            os.environ.setdefault(variable, value)
