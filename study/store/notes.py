"""What Optuna's own tools show of a study beside its numbers: names, notes, a few plain columns.

Readers of results need none of it. Notes are where Optuna Dashboard keeps them (system attributes,
in pieces), so that it shows them as if they had been written there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage

from study.basics.text_format import capital
from study.config.load import StudyConfig
from study.protocol.plan import Cell
from study.protocol.records import (
    BaseModelRecord,
    OutcomeStatus,
    Stage,
    TrialOutcome,
    TrialSpec,
    base_name,
)
from study.protocol.words import BASES
from study.strategies import arm_label

_METRICS, _METRIC = "study:metric_names", "validation loss"
_NOTE_VERSION, _NOTE_PIECE = "dashboard:note_ver", "dashboard:note_str:"
_PIECE_LENGTH = 1000
"""Optuna Dashboard's own pieces are a little longer; a database column holds 2,045."""
_UNITS = {
    "causal-lm": "nats per target token",
    "sequence-classification": "nats per example",
}


def describe(
    storage: BaseStorage, study_id: int, note: str, columns: Mapping[str, Any] | None = None
) -> None:
    """Name an Optuna study's values, give it a note and plain attributes, unless it has a note:
    one that somebody wrote in the dashboard stays."""
    if _NOTE_VERSION in storage.get_study_system_attrs(study_id):
        return
    storage.set_study_system_attr(study_id, _METRICS, [_METRIC])
    for name, value in (columns or {}).items():
        storage.set_study_user_attr(study_id, name, value)
    for number, start in enumerate(range(0, len(note), _PIECE_LENGTH)):
        piece = note[start : start + _PIECE_LENGTH]
        storage.set_study_system_attr(study_id, f"{_NOTE_PIECE}{number}", piece)
    storage.set_study_system_attr(study_id, _NOTE_VERSION, 1)


def study_note(config: StudyConfig) -> str:
    """Of the Optuna study that stands for the whole, in Markdown."""
    base = base_name(config.task, None)
    if base == "class prior":
        base += " (the base model itself, where it keeps a head of its own)"
    arms = " or ".join(capital(arm_label(arm)) for arm in config.arms.names)
    return f"""# {_code(config.name)}

{arms} fine-tuning of {_code(config.model.path)}{_basis(config)}, at
{", ".join(f"{size:,}" for size in config.dataset_sizes)} training examples.

This study stands for the whole. It holds the study file and what a step costs, and its one trial
is the {base}: the loss that every trial should get below. The trials are in the others:

- {_code(f"{config.name}/<arm>/n<examples>/r<replicate>")}: one search. A replicate is one whole
  repetition of the tuning, on its own random training subset.
- The same with {_code("/confirm")}: the winner of that search, retrained with fresh seeds.

Values and curves are validation losses ({_UNITS[config.task]}). `test loss` is on examples that no
choice ever saw; only confirm trials have it.

Which arm to use is not read off here: `study report` has the answer and how sure it is.
"""


def cell_note(config: StudyConfig, cell: Cell, stage: Stage) -> str:
    """Of one search, or of its winner's confirm trials, in Markdown."""
    what = f"{capital(arm_label(cell.arm))}, {cell.size:,} examples, replicate {cell.replicate}"
    values = f"Values and curves are validation losses ({_UNITS[config.task]})"
    if stage is Stage.SEARCH:
        again = ""
        if config.confirm.seeds:
            again = f" It is retrained in the study of the same name with {_code('/confirm')}."
        return f"""# {what}: search

Trials of {_code(config.name)} on one training subset{_basis(config)}. The one
with the lowest validation loss is this replicate's winner.{again}

{values}; a trial's value is its lowest.
"""
    return f"""# {what}: confirm

The winner of this replicate's search, retrained with fresh seeds{_basis(config)}. Several sets of
hyperparameters here mean that the search was extended and found another winner; only the newest
count.

{values}; `test loss` is on examples that no choice ever saw.
"""


def cell_columns(cell: Cell) -> dict[str, Any]:
    """Plain attributes of a cell's Optuna studies; all their trials have them in common."""
    return {"arm": cell.arm, "dataset size": cell.size, "replicate": cell.replicate}


def base_columns(task: str, base: BaseModelRecord) -> dict[str, Any]:
    """Plain attributes of the trial that stands for the base model."""
    found = {"trial": base_name(task, base), "test loss": base.test_loss}
    kept = base.retention_loss
    return found if kept is None else {**found, "retention loss": kept}


def columns_at_start(spec: TrialSpec) -> dict[str, Any]:
    """Plain attributes of a trial for the dashboard's table. Few: each is a commit."""
    return {"trial": spec.trial_id}


def columns_at_end(outcome: TrialOutcome) -> dict[str, Any]:
    """The same of how it ended; nothing that it has not, or that goes without saying."""
    found: Mapping[str, Any] = {
        "status": outcome.status if outcome.status != OutcomeStatus.FINISHED else None,
        "reason": outcome.reason or None,
        "test loss": outcome.test_loss,
        "retention loss": outcome.retention_loss,
        "device seconds": round(outcome.device_seconds, 1),
    }
    return {name: value for name, value in found.items() if value is not None}


def _basis(config: StudyConfig) -> str:
    """Nothing is equal to anything in a study of one arm."""
    if len(config.arms.names) < 2:
        return ""
    return f", both arms at equal {BASES[config.comparison].noun}"


def _code(text: str) -> str:
    """Text that Markdown shows as it is."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"
