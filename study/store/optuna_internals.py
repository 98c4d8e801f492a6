"""What is used of Optuna that its documentation does not promise, as seen in 5.0."""

from __future__ import annotations

from typing import Any

USED = {
    "optuna.study.Study:_study_id": "by which a storage knows a study",
    "optuna.trial.Trial:_trial_id": "by which a storage knows a trial",
    "optuna.trial.FrozenTrial:_trial_id": "the same of one that is only read",
}
"""Dotted names, an attribute of instances after a colon, and what each is used for."""


def id_of_study(study: Any) -> int:
    """By which a storage knows it."""
    return int(study._study_id)


def id_of_trial(trial: Any) -> int:
    """By which a storage knows it."""
    return int(trial._trial_id)
