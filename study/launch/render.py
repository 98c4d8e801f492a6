"""Fills a file of ``cluster/`` from a study file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.config import StudyConfig, parse_config
from study.errors import UserError
from study.launch.marked import fill
from study.launch.shape import ClusterShape, cluster_shape
from study.launch.targets import TARGETS, Target, cluster_folder
from study.launch.values import UNKNOWN_MACHINE, Source, target_values
from study.yaml_source import parse_yaml, read_text, suggestion


@dataclass(frozen=True)
class Rendered:
    """A file that starts a cluster and runs a study on it.

    Attributes:
        text: the file.
        shape: the machines it asks for.
        left: line and key of each value that is still the example's, for the user to look at.
        paths: files and folders the study names, as every node must see them.
        accelerator_type: Ray's name of the only GPUs the study trains on, if no kind was asked for.
    """

    text: str
    shape: ClusterShape
    left: tuple[tuple[int, str], ...]
    paths: tuple[str, ...]
    accelerator_type: str | None = None


def render_cluster_file(
    target: str,
    study_file: Path,
    *,
    nodes: int | None = None,
    gpus_per_node: int | None = None,
    cpus_per_node: int | None = None,
    memory_gib: int | None = None,
    accelerator: str | None = None,
    settings: Mapping[str, str] | None = None,
    file_name: str | None = None,
) -> Rendered:
    """Fill the target's file from a study's resources; the files it names need not be here.

    Args:
        target: one of `TARGETS`.
        study_file: the study.
        nodes, gpus_per_node, cpus_per_node: see `cluster_shape`.
        memory_gib: memory of a node; None: 32 GiB per GPU, else 4 per CPU.
        accelerator: GPU kind as the cluster names it; None: any.
        settings: further values by the key of their marked line; an empty one turns it off.
        file_name: what the file will be called, for the command in its header.

    Raises:
        UserError: an unknown target or key, a faulty study, or machines that hold no trial.
    """
    if target not in TARGETS:
        raise UserError(f"There is no target {target!r}. {suggestion(target, TARGETS)}")
    kind = TARGETS[target]
    text = read_text(study_file)
    config = parse_config(text, study_file.absolute().parent, str(study_file))
    shape = cluster_shape(
        config.resources,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        gpu_counts=tuple(count for count, _ in kind.machines),
    )
    source = Source(config, study_file, text, shape, accelerator, memory_gib)
    values = target_values(target, source)
    values |= {key: _setting(kind, key, value) for key, value in (settings or {}).items()}
    _check(kind, values, shape)
    example = (cluster_folder() / kind.file).read_text(encoding="utf-8")
    if file_name is not None:
        example = example.replace(f"cluster/{kind.file}", file_name)
    filled = fill(example, values, shell=kind.is_shell)
    paths = _paths(config, study_file, values.get("folder"))
    unnamed = None if accelerator else config.resources.accelerator_type
    return Rendered(filled.text, shape, filled.left, tuple(paths), unnamed)


def _setting(target: Target, key: str, value: str) -> Any:
    if not value:
        return None
    if target.is_shell:
        return value
    return parse_yaml(value, f"--set {key}={value}").data


def _check(target: Target, values: Mapping[str, Any], shape: ClusterShape) -> None:
    """What only the user can know."""
    if values.get("machine") == UNKNOWN_MACHINE:
        gpus = ", ".join(f"{count}: {name}" for count, name in target.machines)
        raise UserError(
            f"No machine type is known here with {shape.gpus_per_node} GPUs and "
            f"{shape.cpus_per_node} CPUs (by GPUs, {gpus}). Choose another --gpus-per-node or "
            "--cpus-per-node, or name a type with --set machine=TYPE."
        )
    if "source" in values and values["source"] is None:
        raise UserError(
            "The nodes install this program from a checkout of its repository, and this one is "
            "installed without it. Name a checkout with --set source=FOLDER."
        )


def _paths(config: StudyConfig, study_file: Path, folder: str | None) -> Iterator[str]:
    """Local files and folders that the study names, where the nodes look for them.

    Args:
        folder: where the study file goes on the cluster; None: it stays where it is.
    """
    home = study_file.absolute().parent
    data = config.data
    named = [config.model.path, config.model.tokenizer]
    for value in (data.train, data.validation, data.test, data.retention):
        named += value if isinstance(value, list) else [value]
    for path in dict.fromkeys(named):
        if path is None or not os.path.isabs(path):  # a hub id, or the text that is shipped
            continue
        moved = folder is not None and Path(path).is_relative_to(home)
        yield f"{folder}/{Path(path).relative_to(home).as_posix()}" if moved else path
