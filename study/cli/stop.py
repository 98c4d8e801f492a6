"""`study stop`: one trial less, by hand."""

from __future__ import annotations

import difflib

from study.basics.errors import UserError
from study.protocol.plan import StudyPlan
from study.protocol.records import TrialState
from study.store.study_store import StudyStore


def stop_trial(store: StudyStore, trial_id: str) -> str:
    """Ask the study's driver to stop a trial, or to skip it, and say when that happens.

    Raises:
        UserError: the study has no such trial, or it has ended.
    """
    plan = store.plan()
    known = _trial_ids(plan) if plan is not None else []
    if trial_id not in known:
        near = difflib.get_close_matches(trial_id, known, n=3, cutoff=0)
        remedy = f"Nearest: {', '.join(near)}." if near else "It has no trials yet."
        raise UserError(f"No trial {trial_id!r} in study {store.config.name}. {remedy}")
    states = {r.spec.trial_id: r.state for r in store.results().trials}
    state = states.get(trial_id, TrialState.WAITING)
    if state.has_ended:
        raise UserError(f"{trial_id} has already ended ({state.value}): nothing is left to stop.")
    store.request_stop(trial_id)
    if state is TrialState.WAITING:
        return (
            f"{trial_id} will be skipped. It is booked as failed when its turn comes: until then "
            "`study status` shows it waiting."
        )
    if state is TrialState.PAUSED:
        return f"{trial_id} is paused. It is booked as failed when the study is run again."
    return f"{trial_id} will be stopped at its next evaluation and booked as failed."


def _trial_ids(plan: StudyPlan) -> list[str]:
    """Of every trial there will be; which confirm trials there are does not depend on winners."""
    search = [spec.trial_id for spec in plan.search]
    return search + [spec.trial_id for cell in plan.cells for spec in plan.confirm(cell, {})]
