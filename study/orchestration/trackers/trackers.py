"""The trackers: TensorBoard, MLflow, Weights & Biases, each by its own client. No Ray in here."""

from __future__ import annotations

import hashlib
import json
import math
import netrc
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from study.basics.database_url import file_url
from study.basics.paths import StudyPaths
from study.basics.urls import without_password
from study.protocol.records import OutcomeStatus, TrialSpec

_FAILED = (OutcomeStatus.DIVERGED, OutcomeStatus.ERROR, OutcomeStatus.STOPPED)


class ShownTrial:
    """A trial as people are to see it: by its own name, with its hyperparameters, grouped by cell.

    Args:
        mark: of the study; two studies of one name share no run.
        about: shown beside the trial's own settings.

    Attributes:
        trial_id: differs from the name: another winner's confirm trials have the same names.
        step: of the last evaluation.
        status: how it ended, as in `TrialOutcome`; None before.
    """

    def __init__(self, spec: TrialSpec, mark: str, about: Mapping[str, Any]) -> None:
        key = json.dumps([mark, spec.trial_id, spec.hyperparameters], sort_keys=True)
        self.name = spec.trial_id
        self.trial_id = f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        self.group = f"{spec.arm}-n{spec.size}"
        self.settings = {
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
        self.step = 0
        self.status: OutcomeStatus | None = None

    @property
    def failed(self) -> bool:
        return self.status in _FAILED


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

    def set_up(self) -> None:  # noqa: B027
        """Before anything else; again where it failed."""

    @abstractmethod
    def begin(self, trial: ShownTrial) -> None:
        """A trial starts, or goes on where an earlier session left it."""

    def show(self, trial: ShownTrial, numbers: Mapping[str, float | None]) -> None:
        """Numbers at the trial's step; those that are not finite are left out."""
        self._show(trial, {k: v for k, v in numbers.items() if v is not None and math.isfinite(v)})

    @abstractmethod
    def _show(self, trial: ShownTrial, numbers: Mapping[str, float]) -> None:
        """Finite numbers at the trial's step."""

    @abstractmethod
    def end(self, trial: ShownTrial) -> None:
        """A trial ended, see its status; one that was interrupted goes on later."""


class TensorBoard(Tool):
    """A folder of event files per trial, which a trial that goes on adds to."""

    label = "TensorBoard"
    _PREFIX = "ray/tune/"
    """Of every curve, as in the folders of studies that Ray's own callback wrote."""

    def __init__(self, study: str, mark: str, paths: StudyPaths) -> None:
        super().__init__(study, mark, paths)
        self.where = f"tensorboard --logdir {paths.tensorboard}"
        self._writers: dict[str, Any] = {}
        self._last: dict[str, dict[str, float]] = {}

    def begin(self, trial: ShownTrial) -> None:
        from tensorboardX import SummaryWriter

        self._writers[trial.trial_id] = SummaryWriter(str(self._paths.tensorboard / trial.name))

    def _show(self, trial: ShownTrial, numbers: Mapping[str, float]) -> None:
        writer = self._writers[trial.trial_id]
        named = {f"{self._PREFIX}{name}": value for name, value in numbers.items()}
        for name, value in named.items():
            writer.add_scalar(name, value, global_step=trial.step)
        writer.flush()
        self._last[trial.trial_id] = named

    def end(self, trial: ShownTrial) -> None:
        from tensorboardX.summary import hparams

        writer = self._writers.pop(trial.trial_id)
        plain = {k: v for k, v in trial.settings.items() if isinstance(v, str | bool | int | float)}
        for summary in hparams(plain, self._last.pop(trial.trial_id, {})):
            writer.file_writer.add_summary(summary)
        writer.close()


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
        self._runs: dict[str, str] = {}

    def set_up(self) -> None:
        # A server that is gone must not hold up the end of a study for minutes at every call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(self._uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._study
        known = self._client.get_experiment_by_name(name)
        self._experiment = known.experiment_id if known else self._client.create_experiment(name)

    def begin(self, trial: ShownTrial) -> None:
        from mlflow.entities import Param

        same = f"tags.study_trial = '{trial.trial_id}'"
        known = self._client.search_runs([self._experiment], same, max_results=1)
        if known:
            self._runs[trial.trial_id] = known[0].info.run_id
            return
        tags = {"study": self._study, "study_trial": trial.trial_id, "trial_name": trial.name}
        run = self._client.create_run(self._experiment, tags=tags, run_name=trial.name)
        self._runs[trial.trial_id] = run.info.run_id
        params = [Param(name, str(value)) for name, value in trial.settings.items()]
        self._client.log_batch(run.info.run_id, params=params)

    def _show(self, trial: ShownTrial, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, trial.step) for name, value in numbers.items()]
        self._client.log_batch(self._runs[trial.trial_id], metrics=metrics)

    def end(self, trial: ShownTrial) -> None:
        run = self._runs.pop(trial.trial_id)
        if trial.status != OutcomeStatus.INTERRUPTED:  # then it stays a run that goes on
            self._client.set_terminated(run, "FAILED" if trial.failed else "FINISHED")


class WandB(Tool):
    """A run per trial, grouped by cell. Offline where nobody is logged in."""

    label = "Weights & Biases"
    _INIT_SECONDS, _FINISH_SECONDS = 30, 60

    def __init__(self, study: str, mark: str, paths: StudyPaths) -> None:
        super().__init__(study, mark, paths)
        self._project = (
            os.environ.get("WANDB_PROJECT") or os.environ.get("WANDB_PROJECT_NAME") or study
        )
        self._mode: Any = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        self.where = f"project {self._project}"
        if self._mode == "offline":
            self.where = f"offline, for `wandb sync`, in {paths.wandb}"
        self._runs: dict[str, Any] = {}

    def begin(self, trial: ShownTrial) -> None:
        import wandb

        self._runs[trial.trial_id] = wandb.init(
            id=trial.trial_id,
            name=trial.name,
            group=trial.group,
            project=self._project,
            entity=os.environ.get("WANDB_ENTITY"),
            config=trial.settings,
            dir=str(self._paths.root.absolute()),
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            allow_val_change=True,
            reinit="create_new",  # several trials run at once
            # The driver is not the trial: what it prints and uses says nothing of it.
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                init_timeout=self._INIT_SECONDS,
            ),
        )

    def _show(self, trial: ShownTrial, numbers: Mapping[str, float]) -> None:
        self._runs[trial.trial_id].log(dict(numbers), step=trial.step)

    def end(self, trial: ShownTrial) -> None:
        run = self._runs.pop(trial.trial_id)
        # It waits for the server for as long as that takes.
        end = threading.Thread(target=run.finish, args=(int(trial.failed),), daemon=True)
        end.start()
        end.join(self._FINISH_SECONDS)


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
