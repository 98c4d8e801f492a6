"""What a study can be rendered for: a file of ``cluster/`` each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One way to run a study on several machines.

    Attributes:
        file: its example in ``cluster/``.
        what: in a few words.
        machines: a cloud's machine types by the GPUs that one has; empty where machines are there
            already.
        cpu_machines: the same by CPUs, of machines without a GPU.
    """

    file: str
    what: str
    machines: tuple[tuple[int, str], ...] = ()
    cpu_machines: tuple[tuple[int, str], ...] = ()

    @property
    def is_shell(self) -> bool:
        return self.file.endswith(".sh")


TARGETS = {
    "kuberay": Target("kuberay-rayjob.yaml", "Kubernetes with the KubeRay operator"),
    "slurm": Target("slurm.sh", "a Slurm batch script"),
    # L4 GPUs, which both clouds have at every size; `--set machine=...` names any other kind.
    "aws": Target(
        "launcher-aws.yaml",
        "Ray's cluster launcher on AWS, spot workers",
        machines=((1, "g6.4xlarge"), (4, "g6.12xlarge"), (8, "g6.48xlarge")),
        cpu_machines=(
            (4, "m7i.xlarge"), (8, "m7i.2xlarge"), (16, "m7i.4xlarge"), (32, "m7i.8xlarge"),
            (64, "m7i.16xlarge"), (96, "m7i.24xlarge"),
        ),
    ),
    "gcp": Target(
        "launcher-gcp.yaml",
        "Ray's cluster launcher on Google Cloud, spot workers",
        machines=(
            (1, "g2-standard-16"), (2, "g2-standard-24"), (4, "g2-standard-48"),
            (8, "g2-standard-96"),
        ),
        cpu_machines=(
            (4, "n2-standard-4"), (8, "n2-standard-8"), (16, "n2-standard-16"),
            (32, "n2-standard-32"), (64, "n2-standard-64"), (96, "n2-standard-96"),
        ),
    ),
    "local": Target("launcher-local.yaml", "Ray's cluster launcher on machines you have"),
}  # fmt: skip
"""By the name that `study cluster render` takes."""


def cluster_folder() -> Path:
    """``cluster/``: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "cluster"
    return inside if inside.is_dir() else package.parent / "cluster"
