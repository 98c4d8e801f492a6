"""What the command line does, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.config import StudyConfig, load_config
from study.errors import StoreError
from study.orchestration.observer import Observer
from study.orchestration.prepare import Prepared, prepare_study
from study.paths import StudyPaths
from study.plan import StudyPlan
from study.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState
from study.remote import is_remote
from study.results import StudyResults
from study.store import StudyStore


class QuietObserver(Observer):
    """Follows nothing."""

    def planned(self, plan: StudyPlan, records: Sequence[TrialRecord]) -> None: ...
    def message(self, text: str) -> None: ...
    def started(self, spec: TrialSpec) -> None: ...
    def measured(self, spec: TrialSpec, measurement: Measurement) -> None: ...
    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None: ...


def plan_study(config: StudyConfig) -> Prepared:
    """Prepare the data, look at the model, and lay out every trial; no Ray, no training.

    Raises:
        UserError: the study cannot run as it is written.
    """
    return prepare_study(config)


def run_study(config: StudyConfig, observer: Observer | None = None) -> StudyResults:
    """Run what is missing of a study and return everything on record.

    Raises:
        UserError: the study cannot run as it is written.
    """
    from study.orchestration.runner import run_study as run

    return run(config, observer or QuietObserver())


def read_study(source: str | Path) -> StudyResults:
    """Everything on record of a study, from any machine.

    Args:
        source: the URL of a results folder (``s3://bucket/study``), or what `open_study` takes.

    Raises:
        UserError: there is no study.
    """
    if is_remote(source):
        from study.shared_results import read_results

        return read_results(str(source))
    return open_study(source).results()


def open_study(source: str | Path) -> StudyStore:
    """Open a study's store for reading.

    Args:
        source: a study file, a results folder, a folder with a ``study.yaml``, or an Optuna
            storage URL.

    Raises:
        UserError: there is no study.
    """
    if "://" in str(source):
        return StudyStore.open(str(source))
    path = Path(source)
    if path.is_dir():
        database = StudyPaths(path).database
        if database.is_file():
            return StudyStore.open(f"sqlite:///{database.resolve()}")
        if not (path / "study.yaml").is_file():
            raise StoreError(
                f"No study in {path}: neither study.db nor study.yaml is there. Name a study "
                "file or the results folder of a study."
            )
        path = path / "study.yaml"
    config = load_config(path)
    return StudyStore.open(config.database_url, config.name)
