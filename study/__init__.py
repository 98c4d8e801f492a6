"""Full fine-tuning or LIFT? Studies that answer for a model, its data and a budget.

from study import load_config, plan_study, run_study, open_study

config = load_config("study.yaml")
print(plan_study(config).warnings)
results = run_study(config)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from study.config.load import StudyConfig, load_config
    from study.orchestration.observer import Observer
    from study.orchestration.prepare import Prepared
    from study.protocol.results import StudyResults
    from study.report.notebook import StudyView
    from study.store.opening import open_study, read_study

__all__ = [
    "evaluations_frame", "load_config", "open_study", "plan_study", "read_study", "run_study",
    "show", "trials_frame",
]  # fmt: skip

# Imported on first use, as in the functions: `study --help` must not wait for Optuna, and workers
# need none of it.
_ELSEWHERE = {
    "load_config": "study.config.load",
    "open_study": "study.store.opening",
    "read_study": "study.store.opening",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'study' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE[name]), name)


def plan_study(config: StudyConfig) -> Prepared:
    """Prepare the data, look at the model, and lay out every trial, with what the study has on
    record; no Ray, no training.

    Raises:
        UserError: the study cannot run as it is written.
    """
    from study.orchestration.prepare import prepare_known
    from study.store.opening import store_of

    return prepare_known(config, store_of(config))


def run_study(config: StudyConfig, observer: Observer | None = None) -> StudyResults:
    """Run what is missing of a study and return everything on record.

    Raises:
        UserError: the study cannot run as it is written.
    """
    from study.orchestration.observer import QuietObserver
    from study.orchestration.runner import run_study as run

    return run(config, observer or QuietObserver())


def trials_frame(study: StudyResults | str | Path) -> pandas.DataFrame:
    """Every trial as a row of a pandas frame; `study.analysis.table.rows_of` says what is in it.

    Args:
        study: results, or what `read_study` takes.

    Raises:
        UserError: there is no study.
    """
    from study.analysis.table import rows_of, to_frame

    return to_frame(rows_of(_results(study)))


def evaluations_frame(study: StudyResults | str | Path) -> pandas.DataFrame:
    """Every evaluation of every trial as a row: the learning curves.

    Args:
        study: results, or what `read_study` takes.

    Raises:
        UserError: there is no study.
    """
    from study.analysis.table import rows_of, to_frame

    return to_frame(rows_of(_results(study), "evaluations"))


def show(
    study: StudyResults | str | Path,
    dataset_sizes: Sequence[int] = (),
    memory_limit_gib: float | None = None,
) -> StudyView:
    """The report for a notebook: as the last line of a cell it is drawn there, and so is each of
    its `verdict`, `comparison` and `curves`; printed, they are text.

    Args:
        study: results, or what `read_study` takes.
        dataset_sizes: training examples to answer for; empty: the study's own question.
        memory_limit_gib: of one device of yours; None: the study's.

    Raises:
        UserError: there is no study.
    """
    from study.report.notebook import StudyView

    return StudyView(_results(study), dataset_sizes, memory_limit_gib)


def _results(study: StudyResults | str | Path) -> StudyResults:
    from study.protocol.results import StudyResults
    from study.store.opening import read_study

    return study if isinstance(study, StudyResults) else read_study(study)
