"""What Slurm says of its nodes, where this machine can ask it."""

from __future__ import annotations

import subprocess

_ANSWER_SECONDS = 10


def has_gpus(partition: str | None) -> bool | None:
    """Whether a partition, or the one that jobs go to by themselves, has nodes with GPUs.

    Returns:
        None where there is no Slurm here to ask, or it knows no such partition.
    """
    command = ["sinfo", "--noheader", "--format=%P|%G"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_ANSWER_SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    nodes = [line.partition("|")[::2] for line in answer.splitlines()]
    if partition is None:
        asked = [gres for name, gres in nodes if name.endswith("*")]
        asked = asked or [gres for _, gres in nodes]
    else:
        asked = [gres for name, gres in nodes if name.rstrip("*") in partition.split(",")]
    return any("gpu" in gres for gres in asked) if asked else None
