"""What a study can be rendered for: a file of ``cluster/`` each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study.basics.shipped import shipped_folder

USUAL_GPU = "L4"
"""Both clouds have it at every size; asked for where the study names no other kind."""


@dataclass(frozen=True)
class Machine:
    """A machine type of a cloud.

    Attributes:
        name: the cloud's.
        gpu: Ray's name of its GPUs; None: it has none.
        accelerator: the cloud's own name of them, if it has one.
    """

    name: str
    gpus: int
    cpus: int
    memory_gib: int
    gpu: str | None = None
    accelerator: str | None = None

    def has(self, kind: str) -> bool:
        """Whether its GPUs are of a kind, by Ray's name or the cloud's."""
        return kind.lower() in {name.lower() for name in (self.gpu, self.accelerator) if name}


@dataclass(frozen=True)
class Target:
    """One way to run a study on several machines.

    Attributes:
        file: its example in ``cluster/``.
        what: in a few words.
        machines: a cloud's machine types; empty where machines are there already.
        takes_machines: whether the file says what machines are wanted.
        longest_name: letters of the cluster's name. KubeRay refuses longer RayJob names, and
            Google's machines get names of at most 63, since other names are made from them.
    """

    file: str
    what: str
    machines: tuple[Machine, ...] = ()
    takes_machines: bool = True
    longest_name: int = 47

    @property
    def is_shell(self) -> bool:
        return self.file.endswith(".sh")

    def with_gpu(self, kind: str | None) -> tuple[Machine, ...]:
        """Its machine types with a kind of GPU, or without one, the smallest first."""
        found = (m for m in self.machines if (m.has(kind) if kind else m.gpu is None))
        return tuple(sorted(found, key=lambda m: (m.gpus, m.cpus, m.memory_gib)))

    def machine(self, name: str) -> Machine | None:
        """A machine type by its name; None: not known here."""
        return next((machine for machine in self.machines if machine.name == name), None)


def _machines(
    gpu: str | None, accelerator: str | None, rows: Sequence[tuple[str, int, int, int]]
) -> tuple[Machine, ...]:
    """Machine types by name, GPUs, CPUs and GiB."""
    return tuple(Machine(*row, gpu, accelerator) for row in rows)


_AWS = (
    *_machines(None, None, [
        ("m7i.xlarge", 0, 4, 16), ("m7i.2xlarge", 0, 8, 32), ("m7i.4xlarge", 0, 16, 64),
        ("m7i.8xlarge", 0, 32, 128), ("m7i.16xlarge", 0, 64, 256), ("m7i.24xlarge", 0, 96, 384),
        ("m7i.48xlarge", 0, 192, 768),
    ]),
    *_machines("L4", None, [
        ("g6.2xlarge", 1, 8, 32), ("g6.4xlarge", 1, 16, 64), ("g6.8xlarge", 1, 32, 128),
        ("g6.16xlarge", 1, 64, 256), ("g6.12xlarge", 4, 48, 192), ("g6.48xlarge", 8, 192, 768),
    ]),
    *_machines("L40S", None, [
        ("g6e.2xlarge", 1, 8, 64), ("g6e.4xlarge", 1, 16, 128), ("g6e.12xlarge", 4, 48, 384),
        ("g6e.24xlarge", 4, 96, 768), ("g6e.48xlarge", 8, 192, 1536),
    ]),
    *_machines("A10G", None, [
        ("g5.2xlarge", 1, 8, 32), ("g5.4xlarge", 1, 16, 64), ("g5.12xlarge", 4, 48, 192),
        ("g5.48xlarge", 8, 192, 768),
    ]),
    *_machines("T4", None, [
        ("g4dn.2xlarge", 1, 8, 32), ("g4dn.4xlarge", 1, 16, 64), ("g4dn.12xlarge", 4, 48, 192),
        ("g4dn.metal", 8, 96, 384),
    ]),
    *_machines("A100", "A100-40G", [("p4d.24xlarge", 8, 96, 1152)]),
    *_machines("A100", "A100-80G", [("p4de.24xlarge", 8, 96, 1152)]),
    *_machines("H100", None, [("p5.4xlarge", 1, 16, 256), ("p5.48xlarge", 8, 192, 2048)]),
    *_machines("H200", None, [("p5en.48xlarge", 8, 192, 2048)]),
    *_machines("B200", None, [("p6-b200.48xlarge", 8, 192, 2048)]),
)  # fmt: skip
_GCP = (
    *_machines(None, None, [
        ("n2-standard-4", 0, 4, 16), ("n2-standard-8", 0, 8, 32), ("n2-standard-16", 0, 16, 64),
        ("n2-standard-32", 0, 32, 128), ("n2-standard-64", 0, 64, 256),
        ("n2-standard-96", 0, 96, 384), ("n2-standard-128", 0, 128, 512),
    ]),
    *_machines("L4", "nvidia-l4", [
        ("g2-standard-8", 1, 8, 32), ("g2-standard-12", 1, 12, 48), ("g2-standard-16", 1, 16, 64),
        ("g2-standard-32", 1, 32, 128), ("g2-standard-24", 2, 24, 96),
        ("g2-standard-48", 4, 48, 192), ("g2-standard-96", 8, 96, 384),
    ]),
    *_machines("A100", "nvidia-tesla-a100", [
        ("a2-highgpu-1g", 1, 12, 85), ("a2-highgpu-2g", 2, 24, 170), ("a2-highgpu-4g", 4, 48, 340),
        ("a2-highgpu-8g", 8, 96, 680), ("a2-megagpu-16g", 16, 96, 1360),
    ]),
    *_machines("A100", "nvidia-a100-80gb", [
        ("a2-ultragpu-1g", 1, 12, 170), ("a2-ultragpu-2g", 2, 24, 340),
        ("a2-ultragpu-4g", 4, 48, 680), ("a2-ultragpu-8g", 8, 96, 1360),
    ]),
    *_machines("H100", "nvidia-h100-80gb", [
        ("a3-highgpu-1g", 1, 26, 234), ("a3-highgpu-2g", 2, 52, 468),
        ("a3-highgpu-4g", 4, 104, 936), ("a3-highgpu-8g", 8, 208, 1872),
    ]),
    *_machines("H200", "nvidia-h200-141gb", [("a3-ultragpu-8g", 8, 224, 2952)]),
    *_machines("B200", "nvidia-b200", [("a4-highgpu-8g", 8, 224, 3968)]),
)  # fmt: skip

TARGETS = {
    "kuberay": Target("kuberay-rayjob.yaml", "Kubernetes with the KubeRay operator"),
    "slurm": Target("slurm.sh", "a Slurm batch script"),
    "aws": Target("launcher-aws.yaml", "Ray's cluster launcher on AWS, spot workers", _AWS),
    "gcp": Target(
        "launcher-gcp.yaml",
        "Ray's cluster launcher on Google Cloud, spot workers",
        _GCP,
        longest_name=35,
    ),
    "local": Target(
        "launcher-local.yaml", "Ray's cluster launcher on machines you have", takes_machines=False
    ),
}
"""By the name that `study cluster render` takes."""


def cluster_folder() -> Path:
    """Where the files that are filled lie."""
    return shipped_folder("cluster")
