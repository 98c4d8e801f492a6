"""What a study puts into each file of ``cluster/``: the values of its marked lines."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from study.basics.errors import UserError
from study.basics.shipped import checkout
from study.basics.urls import has_password
from study.config.models import StudyConfig
from study.launch.cluster_file.shape import ClusterShape
from study.launch.cluster_file.targets import TARGETS, Machine, Target

SHARED_FOLDER = "/shared"
"""Where the shared volume is mounted in Kubernetes pods and on cloud machines."""
UNKNOWN_MACHINE = "?"
"""Stands where only the user can name a machine type."""
CARRIED = ("study", "space", "items")
"""Values that are the study's own files, and set by nothing else."""
WRAPPED: Mapping[str, Callable[[str], Any]] = {
    "profile": lambda name: {"Arn" if name.startswith("arn:") else "Name": name},
    "worker_account": lambda email: [{"email": email, "scopes": [_ALL_OF_GOOGLE]}],
}
"""Values that a file has in a form that nobody wants to type, by the name that is typed."""
_ALL_OF_GOOGLE = "https://www.googleapis.com/auth/cloud-platform"
"""A service account's scope; what it may do is for its roles to say."""
_GIB_PER_GPU = 32
_GIB_PER_CPU = 4
_SLACK_MINUTES = 30
"""Added to a study's own time limit: starting, stopping and writing the report."""
_MOST_BYTES = 250_000
"""Of the files in a config map: `kubectl apply` keeps a copy beside it, of 256 KiB at most."""


@dataclass(frozen=True)
class Source:
    """A study as it is rendered.

    Attributes:
        config: the study, its paths absolute.
        file: the study file as the user named it.
        text: what the file says.
        secrets: settings of it with a password in them.
        space: the search space's file, if it is one of the user's: its path as the study names it,
            and what it says.
        shape: the machines it gets.
        gpu: kind of GPU as the cluster names it, Ray's name or a cloud's; None: any.
        machine: a cloud's machine type that the user names; None: the smallest that will do.
        memory_gib: memory of a node; None: from its GPUs or CPUs.
    """

    config: StudyConfig
    file: Path
    text: str
    secrets: tuple[str, ...]
    space: tuple[str, str] | None
    shape: ClusterShape
    gpu: str | None
    machine: str | None
    memory_gib: int | None

    @property
    def memory(self) -> int:
        """GiB of a node."""
        if self.memory_gib is not None:
            return self.memory_gib
        by_gpu = _GIB_PER_GPU * self.shape.gpus_per_node
        return by_gpu or max(8, _GIB_PER_CPU * self.shape.cpus_per_node)


def target_values(target: str, source: Source) -> dict[str, Any]:
    """Values by key, None for a line that is turned off.

    Raises:
        UserError: the study cannot be rendered for the target as it is.
    """
    make = {
        "kuberay": _kuberay, "slurm": _slurm, "aws": _cloud, "gcp": _cloud, "local": _local,
    }[target]  # fmt: skip
    return make(source, TARGETS[target])


def cluster_name(study: str, longest: int) -> str:
    """A study's name as Kubernetes and the clouds allow it, another one for every study: with a
    hash, unless it is the very name."""
    name = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    name = name if name[:1].isalpha() else f"study-{name}".rstrip("-")
    if name == study and len(name) <= longest:
        return name
    mark = hashlib.sha256(study.encode()).hexdigest()[:8]
    return f"{name[: longest - len(mark) - 1].rstrip('-')}-{mark}"


def _kuberay(source: Source, target: Target) -> dict[str, Any]:
    shape, name = source.shape, cluster_name(source.config.name, target.longest_name)
    return {
        "name": name,
        "folder": f"{SHARED_FOLDER}/{name}",
        **_config_map(source),
        "ray_version": installed_version("ray"),
        "replicas": shape.nodes,
        "min_replicas": shape.nodes_per_trial,
        "max_replicas": shape.nodes,
        "cpus": shape.cpus_per_node,
        "worker_cpus": str(shape.worker_cpus),
        "memory": f"{source.memory}Gi",
        "gpus": shape.gpus_per_node or None,
        "accelerator": {"nvidia.com/gpu.product": source.gpu} if source.gpu else None,
    }


def _config_map(source: Source) -> dict[str, Any]:
    """The files that travel in it, and where the study looks for them."""
    values: dict[str, Any] = {"study": source.text}
    items = [("run.sh", "run.sh"), ("study.yaml", "files/study.yaml")]
    if source.space is not None:
        path, values["space"] = source.space
        items.append(("space.yaml", f"files/{path}"))
    named = ", ".join(source.secrets) or "a URL"
    if source.secrets or any(map(has_password, values.values())):
        raise UserError(
            f"{source.file}: {named} has a password in it, and the manifest would carry it. Leave "
            "the password out, and put PGPASSWORD into the Kubernetes secret `study-secrets`."
        )
    size = len(json.dumps(values))
    if size > _MOST_BYTES:
        raise UserError(
            f"{source.file}: {size:,} bytes with its search space, and a config map takes "
            f"{_MOST_BYTES:,}. Take out what is not needed, such as comments."
        )
    return values | {"items": [{"key": key, "path": path} for key, path in items]}


def _slurm(source: Source, target: Target) -> dict[str, Any]:
    shape, kind = source.shape, source.gpu
    values: dict[str, Any] = {
        "name": source.config.name,
        "nodes": shape.nodes,
        "cpus": shape.cpus_per_node,
        "memory": f"{source.memory}G",
        "gpus": None,
        "study": str(source.file),
    }
    if shape.gpus_per_node:
        values["gpus"] = f"{kind}:{shape.gpus_per_node}" if kind else shape.gpus_per_node
    hours = source.config.budget.wall_hours
    if hours is not None:
        minutes = math.ceil(hours * 60) + _SLACK_MINUTES
        values["time"] = f"{minutes // 60}:{minutes % 60:02}:00"
    return values


def _cloud(source: Source, target: Target) -> dict[str, Any]:
    shape, machine = source.shape, _machine(source, target)
    resources = {"CPU": shape.worker_cpus}
    if shape.gpus_per_node:
        resources["GPU"] = shape.gpus_per_node
    values: dict[str, Any] = {
        "name": cluster_name(source.config.name, target.longest_name),
        "machine": source.machine or (UNKNOWN_MACHINE if machine is None else machine.name),
        "resources": resources,
        "nodes": shape.nodes,
        "source": _source(),
    }
    if target is TARGETS["gcp"]:
        # Of a machine type that is not known here only the user knows.
        kind, count = source.gpu, shape.gpus_per_node
        if machine is not None:
            kind, count = machine.accelerator, machine.gpus
        gpus = [{"acceleratorType": kind, "acceleratorCount": count}]
        values["accelerator"] = gpus if kind and count else None
    return values


def _machine(source: Source, target: Target) -> Machine | None:
    """The one that the user names, else the smallest that holds a node's workers; None: not
    known here."""
    if source.machine is not None:
        return target.machine(source.machine)
    shape = source.shape
    for machine in target.with_gpu(source.gpu if shape.gpus_per_node else None):
        room = (machine.gpus, machine.cpus, machine.memory_gib)
        wanted = (shape.gpus_per_node, shape.cpus_per_node, source.memory)
        if all(has >= needs for has, needs in zip(room, wanted, strict=True)):
            return machine
    return None


def _local(source: Source, target: Target) -> dict[str, Any]:
    name = cluster_name(source.config.name, target.longest_name)
    return {"name": name, "source": _source()}


def _source() -> str | None:
    """What the nodes install: the checkout that this program runs from, if it does."""
    folder = checkout()
    return None if folder is None else str(folder)
