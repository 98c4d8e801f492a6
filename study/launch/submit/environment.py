"""The runtime environment that Ray makes for a job, each key of it checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.runtime_env import RuntimeEnv
from ray.runtime_env.runtime_env import RuntimeEnvConfig

from study.basics.errors import UserError
from study.basics.interrupt import GRACE_SECONDS
from study.basics.secrets import is_secret
from study.basics.urls import has_password

_ENVIRONMENT = {
    # Ray kills a job 3 s after it asked it to stop; trials write checkpoints first.
    "RAY_JOB_STOP_WAIT_TIME_S": str(round(GRACE_SECONDS) + 30),
    # What `study run` sets for its workers may also be set here.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
# A node that joins installs the requirements before its first worker starts.
_WORKERS_START_SECONDS = "300"
_INSTALL_SECONDS = 1800
_PIP_FIELDS = frozenset({"packages", "pip_check", "pip_version", "pip_install_options"})


def job_environment(
    working_dir: Path,
    modules: Sequence[Path],
    requirements: Sequence[str] | None,
    variables: Mapping[str, str],
) -> dict[str, Any]:
    """Ray's `runtime_env` of a job.

    Args:
        working_dir: a zip file with the study.
        modules: folders that become importable.
        requirements: for pip, pinned; None: the nodes have them.
        variables: environment variables that the user wants set.

    Raises:
        UserError: a variable that looks like a credential.
    """
    for name, value in variables.items():
        if is_secret(name) or has_password(value):
            raise UserError(
                f"--env {name}: a job's variables can be read by everyone who reaches the "
                "cluster's dashboard. Set credentials in the environment of the cluster's nodes."
            )
    environment: dict[str, Any] = {
        "working_dir": str(working_dir),
        "py_modules": [str(module) for module in modules],
        "env_vars": _ENVIRONMENT | dict(variables),
        "config": {"setup_timeout_seconds": _INSTALL_SECONDS},
    }
    if requirements is not None:
        # With pip's cache: the next version of this package shares most of its requirements.
        options = ["--disable-pip-version-check"]
        environment["pip"] = {"packages": list(requirements), "pip_install_options": options}
        environment["env_vars"] = {
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": _WORKERS_START_SECONDS,
            **environment["env_vars"],
        }
    check_keys(environment)
    return environment


def check_keys(environment: Mapping[str, Any]) -> None:
    """Ray ignores keys that it does not know, with what they were meant to do.

    Raises:
        ValueError: this version of Ray does not know one.
    """
    known = {
        "": RuntimeEnv.known_fields,
        "config": RuntimeEnvConfig.known_fields,
        "pip": _PIP_FIELDS,
    }
    for section, fields in known.items():
        unknown = set(environment.get(section, {}) if section else environment) - set(fields)
        if unknown:
            where = f"runtime_env[{section!r}]" if section else "runtime_env"
            raise ValueError(f"{where}: Ray does not know {', '.join(sorted(unknown))}")
