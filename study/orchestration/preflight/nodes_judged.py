"""What the nodes' answers mean: versions, accelerators, shared paths, database, DeepSpeed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.basics.database_url import sqlite_path
from study.basics.text_format import duration
from study.orchestration.cluster.cluster import accelerator_type
from study.orchestration.cluster.workers import Workers
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.node_task import Answer, Question


@dataclass(frozen=True)
class Silent:
    """Why a node did not answer, in one line."""

    reason: str


Answers = Mapping[str, Answer | Silent]
"""By node."""


def answered(answers: Answers) -> dict[str, Answer]:
    """The nodes that answered."""
    return {name: found for name, found in answers.items() if isinstance(found, Answer)}


def check_nodes(answers: Answers) -> Finding:
    """Whether every node can run this package at all."""
    silent = {n: found.reason for n, found in answers.items() if isinstance(found, Silent)}
    if silent:
        name, reason = next(iter(silent.items()))
        others = f" ({len(silent)} of {len(answers)} nodes)" if len(answers) > 1 else ""
        return Finding(
            f"{name} cannot run a task of this package{others}: {reason}",
            Status.FAIL,
            "Install the same environment on every node, and start Ray there from it.",
        )
    count = len(answers)
    return Finding(f"{'1 node answers' if count == 1 else f'all {count} nodes answer'}")


def check_versions(here: Mapping[str, str], answers: Answers) -> Finding:
    """Whether all nodes run the same program as the driver.

    Args:
        here: the driver's own versions.
    """
    different = [
        f"{library} {answer.versions.get(library, 'not installed')} on {name}, {wanted} here"
        for library, wanted in here.items()
        for name, answer in answered(answers).items()
        if answer.versions.get(library) != wanted
    ]
    if different:
        more = f" And {len(different) - 1} more." if len(different) > 1 else ""
        return Finding(
            f"{different[0]}.{more}",
            Status.FAIL,
            "Install the same environment everywhere: pip install -c constraints.txt ...",
        )
    told = ", ".join(f"{library} {here[library]}" for library in ("python", "ray", "torch"))
    return Finding(f"equal everywhere: {told}, ...")


def check_accelerators(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> Finding:
    """What the trials' devices are, and which of the cluster's take no part.

    Args:
        workers: of a trial; their type of GPU is the only one that the study uses.
        nodes: total resources of each living node.
    """
    if not workers.gpus:
        return Finding("workers train on the CPU")
    chosen = workers.accelerator_type
    if chosen is None:
        return Finding("Ray names no accelerator type")
    others = Counter(accelerator_type(n) or "GPUs without a name" for n in nodes if n.get("GPU"))
    others.pop(chosen, None)
    if not others:
        return Finding(f"all {chosen}")
    listed = ", ".join(f"{count} x {kind}" for kind, count in sorted(others.items()))
    return Finding(f"trials run on {chosen}; nodes with other GPUs take no part: {listed}")


def check_shared_paths(results_dir: Path, question: Question, answers: Answers) -> Finding:
    """Whether every node sees the results folder and the model as the driver does."""
    problems: list[tuple[str, str]] = []
    for name, answer in answered(answers).items():
        # A folder that is not there lacks all of its files: one of each kind is told.
        kinds: dict[str, str] = {}
        for path in answer.unseen:
            kinds.setdefault(_remedy(path, results_dir, question), path)
        problems += [
            (f"{path} {answer.unseen[path]} on {name}.", remedy)
            for remedy, path in kinds.items()
            if remedy
        ]
    if problems:
        more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
        remedies = " ".join(dict.fromkeys(remedy for _, remedy in problems))
        return Finding(f"{problems[0][0]}{more}", Status.FAIL, remedies)
    results = any(Path(token).parent == results_dir for token in question.tokens)
    seen = ["results folder"] * (results or question.results_url is not None)
    seen += ["model folder"] * bool(question.model_files)
    count = len(answered(answers))
    where = "from its node" if count == 1 else f"from all {count} nodes"
    told = f"{' and '.join(seen)} seen {where}" if seen else "no folder to look for"
    return Finding(f"{told}; workers need no other files")


def _remedy(path: str, results_dir: Path, question: Question) -> str:
    """What to do about a path that a node does not see; empty: that is another check's."""
    if path == question.results_url:
        return "Give every node the credentials and the endpoint, in its environment."
    if path in question.tokens:
        shared = Path(path).parent == results_dir
        return "Put storage.results on a file system that all nodes share." if shared else ""
    if path in question.model_files:
        return "Put the model on a shared file system, or the same copy on every node."
    return "Set prefix_cache.folder to a folder that can be written on every node."


def check_database_from_nodes(question: Question, answers: Answers) -> Finding:
    """Whether a worker on any node could open the Optuna storage."""
    if question.database is None:
        return Finding("SQLite on the driver's machine, published to storage.results")
    path = sqlite_path(question.database)
    remedy = "Check storage.database, and that the server lets every node in."
    if path is not None:
        remedy = (
            "Set storage.database to a PostgreSQL URL, or put the SQLite file on storage that all "
            "nodes share."
        )
    for name, answer in answered(answers).items():
        unseen = {Path(token).parent for token in answer.unseen if token in question.tokens}
        if path is not None and path.parent in unseen:
            return Finding(f"{name} does not see {path}.", Status.FAIL, remedy)
        if answer.database:
            return Finding(f"{name}: {answer.database}", Status.FAIL, remedy)
    kind = "PostgreSQL" if path is None else "SQLite"
    return Finding(f"{kind} opens on {'the node' if len(answers) == 1 else 'every node'}")


def check_deepspeed(seconds: Mapping[str, float | Silent]) -> Finding:
    """Whether DeepSpeed can be imported on every node."""
    for name, found in seconds.items():
        if isinstance(found, Silent):
            return Finding(
                f"DeepSpeed cannot be imported on {name}: {found.reason}",
                Status.FAIL,
                "Its environment there must be this one's. On nodes with GPUs DeepSpeed looks for "
                "CUDA's toolkit of torch's major version: set CUDA_HOME to it.",
            )
    slowest = max((s for s in seconds.values() if isinstance(s, float)), default=0.0)
    return Finding(f"imported in {duration(slowest)} on the slowest node")
