"""What a study puts into each file of ``cluster/``: the values of its marked lines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from study.config_models import StudyConfig
from study.errors import UserError
from study.launch.shape import ClusterShape
from study.launch.targets import TARGETS, Target

SHARED_FOLDER = "/shared"
"""Where the shared volume is mounted in Kubernetes pods and on cloud machines."""
UNKNOWN_MACHINE = "?"
"""Stands where only the user can name a machine type."""
_GIB_PER_GPU = 32
_GIB_PER_CPU = 4
_SLACK_MINUTES = 30
"""Added to a study's own time limit: starting, stopping and writing the report."""
# KubeRay refuses longer RayJob names, since those of its pods are made from them.
_LONGEST_NAME = 47
_PASSWORD = re.compile(r"://[^/@:]*:[^/@]+@")


@dataclass(frozen=True)
class Source:
    """A study as it is rendered.

    Attributes:
        config: the study, its paths absolute.
        file: the study file as the user named it.
        text: what the file says.
        shape: the machines it gets.
        accelerator: GPU kind as the cluster names it; None: any.
        memory_gib: memory of a node; None: from its GPUs or CPUs.
    """

    config: StudyConfig
    file: Path
    text: str
    shape: ClusterShape
    accelerator: str | None
    memory_gib: int | None

    @property
    def name(self) -> str:
        """The study's name as Kubernetes and the clouds allow it."""
        name = re.sub(r"[^a-z0-9]+", "-", self.config.name.lower()).strip("-")
        name = name if name[:1].isalpha() else f"study-{name}".rstrip("-")
        return name[:_LONGEST_NAME].rstrip("-")

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


def _kuberay(source: Source, target: Target) -> dict[str, Any]:
    if _PASSWORD.search(source.text):
        raise UserError(
            f"{source.file}: a URL in it has a password, and the manifest would carry it. Leave "
            "the password out, and put PGPASSWORD into the Kubernetes secret `study-secrets`."
        )
    shape = source.shape
    return {
        "name": source.name,
        "folder": f"{SHARED_FOLDER}/{source.name}",
        "study": source.text,
        "ray_version": installed_version("ray"),
        "replicas": shape.nodes,
        "min_replicas": shape.nodes_per_trial,
        "max_replicas": shape.nodes,
        "cpus": shape.cpus_per_node,
        "memory": f"{source.memory}Gi",
        "gpus": shape.gpus_per_node or None,
        "accelerator": (
            {"nvidia.com/gpu.product": source.accelerator} if source.accelerator else None
        ),
    }


def _slurm(source: Source, target: Target) -> dict[str, Any]:
    shape, kind = source.shape, source.accelerator
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
    shape = source.shape
    resources = {"CPU": shape.cpus_per_node}
    if shape.gpus_per_node:
        resources["GPU"] = shape.gpus_per_node
    values: dict[str, Any] = {
        "name": source.name,
        "machine": _machine(target, shape),
        "resources": resources,
        "nodes": shape.nodes,
        "source": _checkout(),
    }
    if target is TARGETS["gcp"]:
        kind, count = source.accelerator or "nvidia-l4", shape.gpus_per_node
        gpus = [{"acceleratorType": kind, "acceleratorCount": count}]
        values["accelerator"] = gpus if count else None
    return values


def _local(source: Source, target: Target) -> dict[str, Any]:
    return {"name": source.name, "source": _checkout()}


def _machine(target: Target, shape: ClusterShape) -> str:
    """The smallest machine type that holds a node's workers."""
    if shape.gpus_per_node:
        known, wanted = target.machines, shape.gpus_per_node
    else:
        known, wanted = target.cpu_machines, shape.cpus_per_node
    return next((name for size, name in known if size >= wanted), UNKNOWN_MACHINE)


def _checkout() -> str | None:
    """The checkout that this program runs from, which the nodes install; None in an installed
    package."""
    folder = Path(__file__).parents[2]
    return str(folder) if (folder / "pyproject.toml").is_file() else None
