"""What is used of Ray that its documentation does not promise, as of Ray 2.60.

Each is asked for when it is needed. Where a later Ray lacks one, the study goes on without it, more
slowly or less informed, and says so once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from study.basics.secrets import is_secret

if TYPE_CHECKING:
    from ray.job_config import JobConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION_SEEN = "2.60"
USED: Mapping[str, str] = {
    "ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE": "variables, secrets among them, that "
    "Tune copies to the runtime environment of its trials",
    "ray._private.state.available_resources_per_node": "what nobody holds on each node; the public "
    "function gives the whole cluster's",
    "ray._private.state.state.get_cluster_config": "what the autoscaler may add",
    "ray._private.ray_constants.DEBUG_AUTOSCALING_STATUS": "key of what Ray's monitor reports",
    "ray.experimental.internal_kv._internal_kv_get": "reads what Ray's monitor reports",
    "ray._private.authentication.authentication_utils.is_token_auth_enabled": "whether strangers "
    "are kept out",
    "ray.train.v2._internal.execution.context.get_train_context": "whether this machine is about "
    "to be taken away; the public function is a barrier, too slow to be asked before every step",
    "ray.train.v2._internal.callbacks.datasets.DatasetsCallback": "serves Ray Data's datasets, of "
    "which there are none; starting it costs each run about two seconds of CPU",
    "ray.train.torch.TorchTrainer._create_default_callbacks": "where that one is left out",
    "ray.job_config.JobConfig": "its `_py_driver_sys_path`: the import path of workers",
}
"""Dotted names, and what each is for."""


@cache
def _missed(name: str, instead: str) -> None:
    log.warning("Ray has no %s any more (seen in %s): %s", name, VERSION_SEEN, instead)


def _or_else(ask: Callable[[], T], otherwise: T, name: str, instead: str) -> T:
    try:
        return ask()
    except (ImportError, AttributeError):
        _missed(name, instead)
        return otherwise


def keep_from_tune() -> None:
    """Ray Tune copies variables of the driver to the runtime environment of its trials, AWS keys
    among them. Trials here need none: their workers have their nodes' own."""

    def leave_out() -> None:
        from ray.tune.execution import class_cache

        names = class_cache.ENV_VARS_TO_PROPAGATE
        names.difference_update([name for name in names if is_secret(name)])

    told = "Tune may show variables of the driver in its trials' runtime environment"
    _or_else(leave_out, None, "ENV_VARS_TO_PROPAGATE", told)


def free_resources() -> dict[str, dict[str, float]]:
    """What nobody holds now, by the node's id; a node that has just come up is not listed yet."""

    def ask() -> dict[str, dict[str, float]]:
        from ray._private.state import available_resources_per_node

        return available_resources_per_node()

    told = "what nodes have is taken for what is free"
    return _or_else(ask, {}, "available_resources_per_node", told)


def autoscaler_groups() -> list[Any] | None:
    """Groups of nodes that the cluster's autoscaler may add, each with `name`, `resources` and
    `max_count` (below 0: no limit); None where it does not tell."""

    def ask() -> list[Any] | None:
        from ray._private.state import state

        config = state.get_cluster_config()
        return None if config is None else list(config.node_group_configs)

    return _or_else(ask, None, "get_cluster_config", "what the autoscaler may add is not known")


def monitor_status() -> dict[str, Any]:
    """What Ray's monitor reports of the cluster; empty where it reports nothing."""

    def ask() -> dict[str, Any]:
        from ray._private import ray_constants
        from ray.experimental.internal_kv import _internal_kv_get

        status = _internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
        return json.loads(status) if status else {}

    return _or_else(ask, {}, "the monitor's status", "whether nodes may come is not known")


def asks_for_token() -> bool:
    """Whether Ray keeps strangers out."""

    def ask() -> bool:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled

        return is_token_auth_enabled()

    meant = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return _or_else(ask, meant, "is_token_auth_enabled", "RAY_AUTH_MODE is believed")


def is_preempted() -> bool:
    """Whether a machine of this worker's group is about to be taken away, as this worker knows."""

    def ask() -> bool:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None

    told = "trials on a machine that is taken away go on from their last checkpoint"
    return _or_else(ask, False, "preemption_context", told)


def without_datasets(callbacks: list[Any]) -> list[Any]:
    """Ray Train's callbacks but the one that serves datasets."""

    def ask() -> list[Any]:
        from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

        return [c for c in callbacks if not isinstance(c, DatasetsCallback)]

    return _or_else(ask, callbacks, "DatasetsCallback", "each worker group starts more slowly")


def set_import_path(job: JobConfig, path: list[str]) -> None:
    """Have workers import from where the driver does, in its order."""
    if not hasattr(job, "_py_driver_sys_path"):
        _missed("JobConfig._py_driver_sys_path", "workers import from where Ray lets them")
    job._py_driver_sys_path = path
