"""The trackers: TensorBoard, MLflow, Weights & Biases, each behind Ray's own callback for it."""

from __future__ import annotations

import hashlib
import json
import math
import netrc
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.tune.logger import LoggerCallback

from study.basics.database_url import file_url
from study.basics.paths import StudyPaths
from study.basics.urls import without_password
from study.protocol.records import TrialSpec

_FAILED = ("diverged", "error", "stopped")


class ShownTrial:
    """What Ray's logger callbacks read of a Tune trial, as people are to see it: by its own name,
    with its hyperparameters, and grouped by cell.

    Args:
        mark: of the study; two studies of one name share no run.
        about: shown beside the trial's own settings.

    Attributes:
        trial_id: differs from the name: another winner's confirm trials have the same names.
        step: of the last evaluation.
        status: how it ended, as in `TrialOutcome`; empty before.
    """

    def __init__(self, spec: TrialSpec, mark: str, about: Mapping[str, Any]) -> None:
        key = json.dumps([mark, spec.trial_id, spec.hyperparameters], sort_keys=True)
        self.name = spec.trial_id
        self.trial_id = f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        self.config = {
            **spec.hyperparameters,
            "arm": spec.arm,
            "dataset_size": spec.size,
            "replicate": spec.replicate,
            "stage": spec.stage.value,
            "steps": spec.steps,
            "seed": spec.seed,
            "subset_seed": spec.subset_seed,
            "order_seed": spec.order_seed,
            **about,
        }
        self.evaluated_params = self.config
        self.experiment_dir_name = f"{spec.arm}-n{spec.size}"
        self.local_path = ""
        self.checkpoint = None
        self.step, self.status = 0, ""

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


class Tool(ABC):
    """One tracker. Every method may raise whatever the tracker does.

    Args:
        study: its name.
        mark: see `ShownTrial`.
        paths: of its results.

    Attributes:
        label: its name.
        where: where its users find the trials.
    """

    label: str
    where: str

    def __init__(self, study: str, mark: str, paths: StudyPaths) -> None:
        self._study, self._mark, self._paths = study, mark, paths

    @abstractmethod
    def _make(self) -> LoggerCallback:
        """Ray's callback."""

    def set_up(self) -> None:
        """Before anything else; again where it failed."""
        self._callback = self._make()
        self._callback.setup()

    def begin(self, trial: ShownTrial) -> None:
        self._callback.log_trial_start(trial)

    def show(self, trial: ShownTrial, numbers: Mapping[str, float | None]) -> None:
        """Numbers at the trial's step; those that are not finite are left out."""
        finite = {k: v for k, v in numbers.items() if v is not None and math.isfinite(v)}
        # This is what the callbacks take for the step.
        result = finite | {"training_iteration": trial.step}
        self._callback.log_trial_result(trial.step, trial, result)

    def end(self, trial: ShownTrial) -> None:
        self._callback.log_trial_end(trial, failed=trial.status in _FAILED)

    def close(self) -> None:
        """No more trials come."""
        self._callback.on_experiment_end([])


class TensorBoard(Tool):
    """A folder of event files per trial, which a trial that goes on adds to."""

    label = "TensorBoard"

    def __init__(self, study: str, mark: str, paths: StudyPaths) -> None:
        super().__init__(study, mark, paths)
        self.where = f"tensorboard --logdir {paths.tensorboard}"

    def _make(self) -> LoggerCallback:
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()

    def begin(self, trial: ShownTrial) -> None:
        trial.local_path = str(self._paths.tensorboard / trial.name)
        super().begin(trial)


class MLflow(Tool):
    """A run per trial in one experiment, by default in a database of the study's own. A trial that
    goes on after an interruption goes on in its run."""

    label = "MLflow"

    def __init__(self, study: str, mark: str, paths: StudyPaths) -> None:
        super().__init__(study, mark, paths)
        own = file_url(paths.mlflow.absolute())
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or own
        self.where = f"mlflow ui --backend-store-uri {without_password(self._uri)}"
        if self._uri != own:
            self.where = without_password(self._uri)

    def _make(self) -> LoggerCallback:
        # A server that is gone must not hold up the driver for minutes at every call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._study
        return MLflowLoggerCallback(self._uri, experiment_name=name)

    def begin(self, trial: ShownTrial) -> None:
        callback: Any = self._callback
        callback.tags = {"study": self._study, "study_trial": trial.trial_id}
        known = callback.mlflow_util._get_client().search_runs(
            [callback.mlflow_util.experiment_id],
            f"tags.study_trial = '{trial.trial_id}'",
            max_results=1,
        )
        if known:
            callback._trial_runs[trial] = known[0].info.run_id
        super().begin(trial)

    def end(self, trial: ShownTrial) -> None:
        if trial.status != "interrupted":  # then it stays a run that goes on
            super().end(trial)


class WandB(Tool):
    """A run per trial, grouped by cell. Offline where nobody is logged in."""

    label = "Weights & Biases"
    _FINISH_SECONDS = 60

    def __init__(self, study: str, mark: str, paths: StudyPaths) -> None:
        super().__init__(study, mark, paths)
        self._project = (
            os.environ.get("WANDB_PROJECT") or os.environ.get("WANDB_PROJECT_NAME") or study
        )
        self._mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        self.where = f"project {self._project}"
        if self._mode == "offline":
            self.where = f"offline, for `wandb sync`, in {paths.wandb}"

    def _make(self) -> LoggerCallback:
        from ray.air.integrations.wandb import WandbLoggerCallback

        callback: Any = WandbLoggerCallback(
            project=self._project,
            upload_timeout=self._FINISH_SECONDS,
            # Ray logs in a process per trial, which on a cluster inherits nothing from here.
            mode=self._mode,
            entity=os.environ.get("WANDB_ENTITY"),
            dir=str(self._paths.root.absolute()),
            resume="allow" if self._mode == "online" else None,
            # Its process is not the trial's: what it prints and uses says nothing of it.
            settings={"silent": True, "console": "off", "x_disable_stats": True},
        )
        callback._remote_logger_class = _LoggingProcesses
        return callback

    def set_up(self) -> None:
        with _variable("WANDB_MODE", self._mode):  # offline, Ray's callback asks for no key
            super().set_up()

    def begin(self, trial: ShownTrial) -> None:
        trial.local_path = str(self._paths.root.absolute())
        super().begin(trial)

    def show(self, trial: ShownTrial, numbers: Mapping[str, float | None]) -> None:
        super().show(trial, numbers)
        self._raise_what_ended(trial)

    def _raise_what_ended(self, trial: ShownTrial) -> None:
        """A logging process that has ended before its trial has failed; Ray does not look."""
        callback: Any = self._callback
        logging = callback._trial_logging_futures.get(trial)
        if logging is not None and ray.wait([logging], timeout=0)[0]:
            ray.get(logging)


class _LoggingProcesses:
    """In place of the actor class of Ray's callback, which has the key in its runtime environment
    for everyone to read: a process is told the key when it has started."""

    @staticmethod
    def remote(**arguments: Any) -> Any:
        from ray.air.integrations.wandb import _WandbLoggingActor
        from ray.air.util.node import _force_on_current_node

        class LoggingProcess(_WandbLoggingActor):
            def log_in(self, key: str) -> None:
                os.environ["WANDB_API_KEY"] = key

        options = _force_on_current_node() | {"max_restarts": -1, "max_task_retries": -1}
        process: Any = ray.remote(num_cpus=0, **options)(LoggingProcess)
        process = process.remote(**arguments)
        if key := os.environ.get("WANDB_API_KEY"):
            process.log_in.remote(key)
        return process


TOOLS: Mapping[str, type[Tool]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def _logged_in() -> bool:
    """Whether there is a key for Weights & Biases, in the environment or where `wandb login` puts
    it. Its own functions would ask the server, for ten seconds where that is out of reach."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    path = os.environ.get("NETRC") or "~/.netrc"
    try:
        keys = netrc.netrc(os.path.expanduser(path))
    except (OSError, netrc.NetrcParseError):
        return False
    return keys.authenticators(server.hostname or "") is not None


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable while the block runs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
