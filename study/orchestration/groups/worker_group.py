"""Ray Train runs: the shape of a worker group, and how one is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from study.basics.paths import StudyPaths
from study.orchestration.cluster.network import use_interface
from study.orchestration.cluster.workers import Workers
from study.orchestration.groups.failures import failure_reason
from study.orchestration.ray_internals import without_datasets


@dataclass
class _TorchConfig(TorchConfig):
    """Train's process group, over an interface that the other nodes reach."""

    network_interface: str | None = None

    @property
    def backend_cls(self) -> type:
        return _Backend


_TorchBackend: Any = TorchConfig().backend_cls


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: _TorchConfig) -> None:
        worker_group.execute(_choose_interface, backend_config.network_interface)
        super().on_start(worker_group, backend_config)


def _choose_interface(wanted: str | None) -> None:
    """Runs on every worker."""
    context = ray.train.get_context()
    if context.get_local_world_size() < context.get_world_size():
        use_interface(wanted, ray.util.get_node_ip_address())


class _Trainer(TorchTrainer):
    """TorchTrainer without the actor that would serve Ray Data's datasets: there are none here,
    and starting it costs each run about two seconds of CPU."""

    def _create_default_callbacks(self) -> list[Any]:
        return without_datasets(super()._create_default_callbacks())


def run_job(
    worker: Callable[[dict[str, Any]], Any],
    name: str,
    payload: dict[str, Any],
    workers: Workers,
    results_dir: Path,
) -> Any:
    """Run `worker(payload)` on a fresh worker group and return what rank 0 returned.

    Raises:
        TrainingFailedError: a worker raised or died, or the group could not be started.
    """
    trainer = _Trainer(
        worker,
        train_loop_config=payload,
        torch_config=_TorchConfig(network_interface=workers.network_interface),
        scaling_config=workers.scaling(),
        run_config=RunConfig(
            name=name,
            storage_path=str(StudyPaths(results_dir).ray),
            # The switchboard counts and owns retries; Train's default is to retry for ever.
            failure_config=FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
        ),
    )
    return trainer.fit().return_value


class GroupStarter:
    """An actor whose threads each run a group from its start to its end."""

    def run(
        self,
        worker: Callable[[dict[str, Any]], Any],
        name: str,
        payload: dict[str, Any],
        workers: Workers,
        results_dir: Path,
    ) -> str:
        """Why the group failed, one line; empty when it has come to its end."""
        try:
            run_job(worker, name, payload, workers, results_dir)
        except (TrainingFailedError, RayError) as error:
            return failure_reason(error)
        return ""


def group_worker(payload: dict[str, Any]) -> None:
    """What each worker of a group runs. In a module of its own, since Train imports this one in
    processes that need none of what workers do."""
    from study.orchestration.groups.worker import work

    work(payload)
