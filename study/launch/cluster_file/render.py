"""Fills a file of ``cluster/`` from a study file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.basics.errors import UserError
from study.basics.urls import settings_with_password
from study.basics.yaml_source import parse_yaml, read_text, suggestion
from study.config.files import NAMING_FILES
from study.config.load import ResourcesConfig, StudyConfig, parse_config
from study.config.space.read import is_space_file
from study.launch.cluster_file.marked import fill
from study.launch.cluster_file.shape import ClusterShape, cluster_shape
from study.launch.cluster_file.slurm import has_gpus
from study.launch.cluster_file.targets import TARGETS, USUAL_GPU, Target, cluster_folder
from study.launch.cluster_file.values import (
    CARRIED,
    UNKNOWN_MACHINE,
    WRAPPED,
    Source,
    target_values,
)


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
        nodes, gpus_per_node, cpus_per_node: see `cluster_shape`. Where `gpus_per_node` is None,
            Slurm is asked whether it has GPUs at all.
        memory_gib: memory of a node; None: 32 GiB per GPU, else 4 per CPU.
        accelerator: GPU kind as the cluster names it, for a cloud also as Ray does; None: the
            study's own on a cloud, any elsewhere.
        settings: further values by the key of their marked line; an empty one turns it off.
        file_name: what the file will be called, for the command in its header.

    Raises:
        UserError: an unknown target or key, a faulty study, what the target cannot be asked for,
            or machines that hold no trial.
    """
    if target not in TARGETS:
        raise UserError(f"There is no target {target!r}. {suggestion(target, TARGETS)}")
    kind, settings = TARGETS[target], settings or {}
    text = read_text(study_file)
    config = parse_config(text, study_file.absolute().parent, str(study_file))
    if not kind.takes_machines:
        machines = {
            "--nodes": nodes, "--gpus-per-node": gpus_per_node, "--cpus-per-node": cpus_per_node,
            "--memory": memory_gib, "--accelerator": accelerator,
        }  # fmt: skip
        _refuse_machines(target, machines)
    named = settings.get("machine")
    gpu, gpu_counts = _gpu(kind, config.resources, accelerator, named, gpus_per_node)
    if target == "slurm" and gpus_per_node is None and config.resources.gpus_per_worker == "auto":
        gpus_per_node = 0 if has_gpus(settings.get("partition")) is False else None
    shape = cluster_shape(
        config.resources,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        gpu_counts=gpu_counts,
    )
    if accelerator and not shape.gpus_per_node:
        raise UserError(f"--accelerator {accelerator}: the machines have no GPUs. Leave it out.")
    written = parse_yaml(text, str(study_file)).data
    source = Source(
        config=config,
        file=study_file,
        text=text,
        secrets=tuple(settings_with_password(written)),
        space=_own_space(written, study_file) if target == "kuberay" else None,
        shape=shape,
        gpu=gpu,
        machine=named,
        memory_gib=memory_gib,
    )
    values = _values(target, source, settings)
    example = (cluster_folder() / kind.file).read_text(encoding="utf-8")
    if file_name is not None:
        example = example.replace(f"cluster/{kind.file}", file_name)
    filled = fill(example, values, shell=kind.is_shell)
    paths = _paths(config, written, values.get("folder"))
    unnamed = None if gpu else config.resources.accelerator_type
    return Rendered(filled.text, shape, filled.left, tuple(paths), unnamed)


def _values(target: str, source: Source, settings: Mapping[str, str]) -> dict[str, Any]:
    """Of the marked lines: from the study, then those that were set."""
    kind, values = TARGETS[target], target_values(target, source)
    for key in CARRIED:
        if target == "kuberay" and key in settings:
            raise UserError(f"--set {key}=...: it is filled from the study file alone.")
    values |= {key: _setting(kind, key, value) for key, value in settings.items()}
    _check(kind, values, source)
    return values


def _refuse_machines(target: str, machines: Mapping[str, object]) -> None:
    options = [name for name, value in machines.items() if value is not None]
    if options:
        raise UserError(
            f"{options[0]}: `{target}` uses machines that are there, and Ray finds out what they "
            "have. Name them with --set head_ip=ADDRESS and --set worker_ips=[ADDRESS, ...], and "
            "what a worker takes of them in the study's `resources`."
        )


def _gpu(
    target: Target,
    resources: ResourcesConfig,
    asked: str | None,
    machine: str | None,
    gpus_per_node: int | None,
) -> tuple[str | None, tuple[int, ...]]:
    """The kind of GPU to ask for, and how many of it one machine can have; nothing: any number.

    Args:
        asked: as the cluster names it, for a cloud also as Ray does.
        machine: a cloud's machine type that the user names.

    Raises:
        UserError: the cloud is not known to have it, or the study trains on another kind.
    """
    own = resources.accelerator_type
    if not target.machines or 0 in (gpus_per_node, resources.gpus_per_worker):
        return asked, ()
    kind = asked or own or (None if machine else USUAL_GPU)
    known = target.with_gpu(kind) if kind else ()
    if asked and own and known and not any(m.has(own) for m in known):
        raise UserError(
            f"--accelerator {asked}: the study trains on {own} alone "
            "(resources.accelerator_type). Leave the option out, or change the study."
        )
    if machine is None and not known:
        kinds = dict.fromkeys(m.accelerator or m.gpu for m in target.machines if m.gpu)
        raise UserError(
            f"{f'--accelerator {asked}' if asked else f'resources.accelerator_type {own}'}: no "
            f"machine type with it is known here (known: {', '.join(map(str, kinds))}). Name a "
            "type with --set machine=TYPE."
        )
    return kind, () if machine else tuple(sorted({m.gpus for m in known}))


def _own_space(written: Any, study_file: Path) -> tuple[str, str] | None:
    """The search space's file below the study's folder, and what it says; None where the space is
    the package's, written in the study, or at an absolute path, as data can be.

    Raises:
        UserError: it lies elsewhere.
    """
    search = written.get("search")
    spec = search.get("space") if isinstance(search, Mapping) else None
    if not is_space_file(spec) or _is_absolute(spec):
        return None
    path = os.path.normpath(spec)
    if path.startswith("..") or path == "study.yaml":
        raise UserError(
            f"{study_file}: search.space is {spec}, and only what lies below the study file's "
            "folder, and is not called study.yaml, can travel in the manifest. Put it there, or on "
            "the shared volume and give its path there."
        )
    return path, read_text(study_file.absolute().parent / path)


def _setting(target: Target, key: str, value: str) -> Any:
    if not value:
        return None
    if target.is_shell:
        return value
    read = parse_yaml(value, f"--set {key}={value}").data
    return WRAPPED[key](read) if key in WRAPPED and isinstance(read, str) else read


def _check(target: Target, values: Mapping[str, Any], source: Source) -> None:
    """What only the user can know."""
    shape = source.shape
    if values.get("machine") == UNKNOWN_MACHINE:
        found = target.with_gpu(source.gpu if shape.gpus_per_node else None)
        known = ", ".join(
            f"{m.name}: {m.gpus} GPUs, {m.cpus} CPUs, {m.memory_gib} GiB" for m in found
        )
        raise UserError(
            f"No machine type is known here with {shape.gpus_per_node} GPUs, "
            f"{shape.cpus_per_node} CPUs and {source.memory} GiB of memory ({known}). Choose "
            "another --gpus-per-node, --cpus-per-node or --memory, or name a type with --set "
            "machine=TYPE."
        )
    if "source" in values and values["source"] is None:
        raise UserError(
            "The nodes install this program from a checkout of its repository, and this one is "
            "installed without it. Name a checkout with --set source=FOLDER."
        )


def _paths(config: StudyConfig, written: Any, folder: str | None) -> Iterator[str]:
    """Local files and folders that the study names, where the nodes look for them.

    Args:
        written: what the study file says.
        folder: where the study file goes on the cluster; None: it stays where it is.
    """
    found = dict[str, None]()
    for section, keys in NAMING_FILES:
        for key in keys:
            named = getattr(getattr(config, section), key)
            as_written = (written.get(section) or {}).get(key)
            if not isinstance(named, list):
                named, as_written = [named], [as_written]
            for path, said in zip(named, as_written or (), strict=True):
                if path is None or not os.path.isabs(path):  # a hub id, or what is shipped
                    continue
                moved = folder is not None and not _is_absolute(said)
                found[os.path.normpath(f"{folder}/{said}") if moved else path] = None
    space = (written.get("search") or {}).get("space")
    if is_space_file(space) and _is_absolute(space):
        found[space] = None
    yield from found


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "~"))
