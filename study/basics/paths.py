"""The one place that names the files of a study's results folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from study.basics.errors import StoreError

STUDY_FILE = "study.yaml"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/\w[\w.-]*)?")


def is_hub_id(path: str, base_dir: Path) -> bool:
    """Whether a path is the name of a model or dataset of the Hugging Face Hub, rather than a local
    one, existing or not."""
    local = base_dir / path
    # `models/llama` with a local folder `models` is a mistyped path, not somebody's model.
    near = (local, local.parent) if "/" in path else (local,)
    return _HUB_ID.fullmatch(path) is not None and not any(map(os.path.exists, near))


def is_yaml(path: str | Path) -> bool:
    """Whether a file's name says that it is YAML."""
    return Path(path).suffix in (".yaml", ".yml")


@dataclass(frozen=True)
class StudyPaths:
    """Files and folders below `root`, the study's results folder."""

    root: Path

    @property
    def data(self) -> Path:
        """Tokenised data."""
        return self.root / "data"

    @property
    def prefix_cache(self) -> Path:
        """Hidden states below LIFT's trained blocks, a folder per host; can be made anew."""
        return self.root / "prefix_cache"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def model(self) -> Path:
        """What a final run has trained; beside it, as JSON, how that went."""
        return self.root / "model"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def log(self) -> Path:
        """What the libraries said on the driver."""
        return self.logs / "study.log"

    @property
    def check_log(self) -> Path:
        """The same while `study check` looks."""
        return self.logs / "check.log"

    @property
    def ray(self) -> Path:
        """Ray Train's and Tune's own files: nothing there is needed after a run."""
        return self.root / "ray"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files, a folder per trial."""
        return self.root / "tensorboard"

    @property
    def mlflow(self) -> Path:
        """MLflow's own database, where no server is named."""
        return self.root / "mlflow.db"

    @property
    def wandb(self) -> Path:
        """Runs of Weights & Biases: until they are sent, or for good where nobody is logged in."""
        return self.root / "wandb"

    @property
    def trackers(self) -> tuple[Path, ...]:
        """What trackers keep here; files and folders that may not be there."""
        return self.tensorboard, self.mlflow, self.wandb

    @property
    def database(self) -> Path:
        """The default storage."""
        return self.root / "study.db"

    @property
    def lock(self) -> Path:
        """Held by the driver that runs the study."""
        return self.root / ".driver.lock"

    def trial_log(self, trial_id: str) -> Path:
        """Log of a trial's rank 0."""
        return self.logs / f"{_one_name(trial_id)}.log"

    def checkpoint(self, trial_id: str) -> Path:
        """Folder of a running trial's checkpoint; gone when the trial has ended."""
        return self.root / "checkpoints" / _one_name(trial_id)


def _one_name(trial_id: str) -> str:
    """A trial's id, which names its files: a record that somebody tampered with must not make it
    name others."""
    if not re.fullmatch(r"\w[\w.-]*", trial_id):
        raise StoreError(f"The store is damaged: {trial_id!r} is no trial's name.")
    return trial_id
