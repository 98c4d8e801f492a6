"""The checks that need the running cluster, and those that need to know it."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from study.basics import surroundings
from study.basics.database_url import sqlite_path
from study.basics.errors import ResourceError
from study.orchestration.preflight import local
from study.orchestration.preflight.base import Checklist, Finding, Status
from study.orchestration.preflight.examination import Examination
from study.orchestration.preflight.memory import Devices, NodeRoom, check_memory, or_without_it
from study.orchestration.preflight.node_task import Question, look_around, own_versions, prepare

with warnings.catch_warnings():
    # Ray, Tune and Train warn about their own deprecations on import.
    warnings.simplefilter("ignore")
    import ray

    from study.orchestration.cluster import cluster
    from study.orchestration.cluster.autoscaler import autoscaler_node_types
    from study.orchestration.preflight import nodes as ray_nodes
    from study.orchestration.preflight import nodes_judged as judged
    from study.orchestration.preflight.prediction import check_prediction, check_probe
    from study.orchestration.preflight.reach import check_reach
    from study.orchestration.preflight.resources import check_resources

_JOIN = (
    "Check RAY_ADDRESS and that the cluster runs. If it asks for a token, copy the head's "
    "~/.ray/auth_token here and set RAY_AUTH_MODE=token. Or unset RAY_ADDRESS to use this machine."
)
_MODEL_FILES = (".json", ".safetensors", ".model", ".txt")


@dataclass
class _Cluster:
    """The running cluster, and what its nodes said."""

    nodes: list[ray_nodes.Node] = field(default_factory=list)
    question: Question = field(init=False)
    answers: judged.Answers = field(default_factory=dict)

    @property
    def totals(self) -> list[dict[str, float]]:
        """Resources of each node."""
        return [node.resources for node in self.nodes]


def check_cluster(checks: Checklist, facts: Examination, *, probe: bool) -> None:
    """Start or join Ray, check, and leave it."""
    found = _Cluster()
    surroundings.set_environment()
    try:
        checks.run("ray", lambda: _start(found), working="Starting Ray")
        checks.run("resources", lambda: _resources(facts, found), needs=("ray",))
        with _tokens(checks, facts) as tokens:
            checks.run(
                "nodes",
                lambda: _ask(facts, found, tokens),
                needs=("ray",),
                working="Asking every node",
            )
        _judge_nodes(checks, facts, found)
        _check_deepspeed(checks, facts, found)
        # Now every node has torch in memory: it takes long to load, and the nodes meet in time.
        _check_network(checks, facts, found)
        checks.run("dashboard", ray_nodes.check_dashboard, needs=("ray",))
        checks.run("token", lambda: ray_nodes.check_token(found.nodes), needs=("ray",))
        _check_room(checks, facts, found)
        probed = check_probe(checks, facts, wanted=probe)
        check_prediction(checks, facts, probed, found.totals)
    finally:
        ray.shutdown()


def _start(found: _Cluster) -> Finding:
    joined = surroundings.ray_address()
    try:
        cluster.start_ray()
    except ResourceError as error:
        if not joined:
            raise
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        return Finding(f"The cluster at {joined} cannot be joined: {reason}", Status.FAIL, _JOIN)
    found.nodes = ray_nodes.list_nodes()
    return Finding(f"joined {joined}" if joined else "starts on this machine")


def _resources(facts: Examination, found: _Cluster) -> Finding:
    finding, facts.room = check_resources(
        facts.config.resources,
        cluster.living_nodes(),
        ray_nodes.available_resources(found.nodes),
        autoscaler_node_types(),
        facts.store.info("device") if facts.store and facts.store.has_results else None,
    )
    return finding


@contextmanager
def _tokens(checks: Checklist, facts: Examination) -> Iterator[dict[str, str]]:
    """Files in every folder that nodes share, for them to read."""
    folders: list[Path] = []
    if facts.config.results_url is None and checks.stands("storage"):
        folders.append(facts.config.results_dir)
    database = sqlite_path(facts.config.database_url)
    if database is not None and _nodes_see(database, facts) and checks.stands("database"):
        folders += {database.parent} - {*folders}
    name, word = f".study-check-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    written: dict[str, str] = {}
    try:
        for folder in folders:
            with suppress(OSError):
                (folder / name).write_text(word)
                written[str(folder / name)] = word
        yield written
    finally:
        for path in written:
            with suppress(OSError):
                Path(path).unlink()


def _nodes_see(database: Path, facts: Examination) -> bool:
    """Whether an SQLite file is one for all nodes: not in a driver's own working folder."""
    url, own = facts.config.results_url, facts.config.results_dir
    return url is None or not database.is_relative_to(own)


def _question(facts: Examination, tokens: dict[str, str]) -> Question:
    folder = Path(facts.config.model.path).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    database = sqlite_path(facts.config.database_url)
    seen = database is None or _nodes_see(database, facts)
    return Question(
        tokens=tokens,
        results_url=facts.config.results_url,
        database=facts.config.database_url if seen else None,
        model_files={str(f): f.stat().st_size for f in files if f.suffix in _MODEL_FILES},
        cache_folder=facts.config.prefix_cache.folder if _caches(facts) else None,
    )


def _caches(facts: Examination) -> bool:
    return facts.config.prefix_cache.enabled is not False


def _ask(facts: Examination, found: _Cluster, tokens: dict[str, str]) -> Finding:
    found.question = _question(facts, tokens)
    found.answers = ray_nodes.on_every_node(found.nodes, look_around, found.question)
    return judged.check_nodes(found.answers)


def _judge_nodes(checks: Checklist, facts: Examination, found: _Cluster) -> None:
    """What the nodes that answered say, though others may not have."""
    answers = found.answers
    needs = () if judged.answered(answers) else ("nodes",)
    checks.run("versions", lambda: judged.check_versions(own_versions(), answers), needs=needs)
    checks.run(
        "accelerators",
        lambda: judged.check_accelerators(facts.room.workers, found.totals),
        needs=("resources",),
    )
    checks.run(
        "paths",
        lambda: judged.check_shared_paths(facts.config.results_dir, found.question, answers),
        needs=needs,
    )
    checks.run(
        "node database",
        lambda: judged.check_database_from_nodes(found.question, answers),
        needs=("database", *needs),
    )


def _on_gpu(facts: Examination) -> bool:
    return facts.room.workers.gpus > 0


def _check_network(checks: Checklist, facts: Examination, found: _Cluster) -> None:
    def check() -> Finding:
        workers = facts.room.workers
        if not cluster.may_span_nodes(workers, found.totals):
            return Finding("no trial has workers on more than one node")
        checks.working("Letting the nodes meet one another")
        holding = [n for n in found.nodes if cluster.worker_slots(workers, n.resources)]
        return check_reach(holding, workers.network_interface)

    checks.run("network", check, needs=("resources", "nodes"))


def _check_deepspeed(checks: Checklist, facts: Examination, found: _Cluster) -> None:
    def check() -> Finding:
        seconds = ray_nodes.on_every_node(
            [node for node in found.nodes if node.name in judged.answered(found.answers)],
            prepare,
            "cuda" if _on_gpu(facts) else "cpu",
        )
        return judged.check_deepspeed(seconds)

    needs = ("resources", *(() if judged.answered(found.answers) else ("nodes",)))
    checks.run("deepspeed", check, needs=needs, working="Importing DeepSpeed on every node")


def _check_room(checks: Checklist, facts: Examination, found: _Cluster) -> None:
    """Memory of each arm, and disk."""
    for arm in facts.config.arms.names:
        needs = ("data", "model", "plan", "resources", "nodes")
        checks.run(f"memory {arm}", partial(_memory, facts, found, arm), needs=needs)
    checks.run("disk", lambda: _disk(checks, facts), needs=("storage", "model", "plan"))


def _memory(facts: Examination, found: _Cluster, arm: str) -> Finding:
    workers = facts.room.workers
    devices = Devices(_rooms(facts, found), workers.count, workers.gpus)
    if not devices.nodes:
        return Finding("no living node holds a worker to compare with", Status.SKIP)
    finding, facts.footprints[arm] = check_memory(
        facts.config, facts.shape, facts.phases[arm], devices, facts.data.longest
    )
    return or_without_it(finding, facts.config, arm)


def _rooms(facts: Examination, found: _Cluster) -> Sequence[NodeRoom]:
    workers, rooms = facts.room.workers, []
    answers = judged.answered(found.answers)
    for node in found.nodes:
        try:
            slots = cluster.trials_that_fit(replace(workers, count=1), [node.resources])
        except ResourceError:
            continue
        answer = answers[node.name]
        at_once = min(slots, max(1, facts.room.trials) * workers.count)
        one = min(slots, workers.count)
        rooms.append(NodeRoom(node.name, answer.memory, answer.gpus, at_once, one))
    return rooms


def _disk(checks: Checklist, facts: Examination) -> Finding:
    from study.orchestration.preflight.footprint import checkpoint_bytes

    bytes_each = [
        checkpoint_bytes(facts.config, facts.shape, phases) for phases in facts.phases.values()
    ]
    trials = facts.room.trials if checks.stands("resources") else 1
    return local.check_disk(facts.config, bytes_each, max(1, trials))
