"""Studies of three shapes, and how they are rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from study.launch import ClusterShape

STUDY: dict[str, Any] = {
    "name": "Big_Study.1",
    "model": {"path": "./base-model"},
    "data": {"train": "./train.jsonl", "text": "text"},
    "dataset_sizes": [1000, 8000],
    "arms": ["full", "lift"],
    "training": {"global_batch_size": 64},
}

# Resources, options of the renderer, and what comes of them, counted by hand.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], ClusterShape]] = {
    "cpu-demo": (
        {"workers_per_trial": 2, "cpus_per_worker": 0.5, "gpus_per_worker": 0},
        {},
        ClusterShape(nodes=1, nodes_per_trial=1, trials=1, cpus_per_node=2, gpus_per_node=0),
    ),
    "8-gpus-one-node": (
        {"workers_per_trial": 8, "cpus_per_worker": 4, "gpus_per_worker": "auto"},
        {},
        ClusterShape(nodes=1, nodes_per_trial=1, trials=1, cpus_per_node=33, gpus_per_node=8),
    ),
    "2-workers-on-2-nodes": (
        {"workers_per_trial": 2, "cpus_per_worker": 6, "gpus_per_worker": 1},
        {"nodes": 2, "gpus_per_node": 1},
        ClusterShape(nodes=2, nodes_per_trial=2, trials=1, cpus_per_node=7, gpus_per_node=1),
    ),
}


def write_study(folder: Path, resources: dict[str, Any], **sections: Any) -> Path:
    """A study file; its model and data are not there, as on a laptop whose data is elsewhere."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"resources": resources} | sections, sort_keys=False))
    return path
