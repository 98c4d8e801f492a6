"""Credentials that are in a cluster's environment stay there."""

from __future__ import annotations

import os
import secrets
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from study.basics.secrets import is_secret
from study.orchestration.ray_internals import keep_from_tune
from tests.helpers.commands import Command, study
from tests.helpers.ray_head import RayHead
from tests.helpers.real_studies import make_folder, write_study

NAMES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
    "HF_TOKEN", "WANDB_API_KEY", "PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN",
)  # fmt: skip
# Of Ray's State API and its dashboard.
ANSWERS = (
    *(f"api/v0/{what}?detail=1&limit=10000" for what in (
        "actors", "tasks", "jobs", "workers", "nodes", "placement_groups", "runtime_envs",
        "cluster_events",
    )),
    "logical/actors", "nodes?view=summary", "api/jobs/", "api/cluster_status", "events",
)  # fmt: skip


def test_credentials_are_told_by_their_names() -> None:
    assert all(map(is_secret, NAMES))
    assert not any(map(is_secret, ("TOKENIZERS_PARALLELISM", "AWS_ENDPOINT_URL", "HF_HOME")))


def test_tunes_trials_have_no_credentials_in_their_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.tune.execution.class_cache import _ActorClassCache

    for name in NAMES:
        monkeypatch.setenv(name, "canary")
    keep_from_tune()

    class Trial:
        pass

    assert "canary" not in str(_ActorClassCache().get(Trial)._default_options)


def answers(head: RayHead) -> dict[str, bytes]:
    """What Ray tells everyone who reaches its dashboard."""
    found = {}
    token = {"Authorization": f"Bearer {head.token_file.read_text()}"}
    for path in ANSWERS:
        request = urllib.request.Request(f"{head.url}/{path}", headers=token)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found[path] = answer.read()
    return found


def files(*folders: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.ray
def test_no_credential_is_in_what_ray_shows_in_a_log_or_in_a_result(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = {name: f"canary-{secrets.token_hex(16)}" for name in NAMES}
    for name, canary in canaries.items():  # the head's own, and the driver's
        monkeypatch.setenv(name, canary)
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = write_study(
        make_folder(tmp_path_factory, "canaries"),
        arms={"full": {}},
        search={
            "space": {"shared": {"learning_rate": 1e-3, "warmup_ratio": 0.0, "max_grad_norm": 1}},
            "trials": 1, "replicates": 1,
        },
        training={"steps": 4, "global_batch_size": 8, "sequence_length": 48, "evaluations": 2},
        resources={"gpus_per_worker": 0, "cpus_per_worker": 0.5},
        tracking=["mlflow", "wandb"],
    )  # fmt: skip
    with RayHead() as head:
        canaries["RAY_AUTH_TOKEN"] = head.token_file.read_text()
        environment: dict[str, Any] = {**os.environ, **head.environment, **canaries}
        environment.pop("RAY_AUTH_TOKEN_PATH")
        command = Command("run", path.name, cwd=path.parent, environment=environment)
        command.wait_for("[  1/")
        seen = {f"{place} while it runs": text for place, text in answers(head).items()}
        assert command.wait() == 0, command.output
        seen |= answers(head)
        for arguments in (
            ("export", "--output", "trials.csv"),
            ("best", "--arm", "full", "--output", "best.yaml"),
            ("best", "--arm", "full", "--format", "transformers", "--output", "exported"),
        ):
            done = study(*arguments, cwd=path.parent, environment=environment)
            assert done.returncode == 0, done.stderr
            seen[" ".join(arguments)] = (done.stdout + done.stderr).encode()
        seen |= files(head.folder / "ray", path.parent) | {"run": command.output.encode()}
    actors = seen["api/v0/actors?detail=1&limit=10000"]
    assert b"ResourceTrainable" in actors, "it was looked at"
    assert [
        (name, place)
        for name, canary in canaries.items()
        for place, text in seen.items()
        if canary.encode() in text
    ] == []
