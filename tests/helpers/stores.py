"""Finished studies that nothing was trained for, in memory and in real stores."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from study.config.load import StudyConfig
from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, StudyPlan, cell_of, plan_trials
from study.protocol.records import (
    BaseModelRecord,
    DataSummary,
    Measurement,
    Stage,
    TrialRecord,
    TrialSpec,
)
from study.protocol.results import StudyResults, winner_of
from study.store.study_store import StudyStore
from tests.helpers.costs import step_costs
from tests.helpers.results import (
    DRAWN_FROM,
    MODEL_FINGERPRINT,
    TRAIN_FINGERPRINT,
    make_config,
    make_trial,
)

BASE_LOSS = 4.6
SIZES = (250, 500, 1000, 2000)
PROBE = step_costs(full_step=0.2, lift_step=0.1)


def finished_study(
    config: StudyConfig | None = None,
    *,
    gap: float = 0.1,
    model: str = MODEL_FINGERPRINT,
    train: str = TRAIN_FINGERPRINT,
    finished: float = 1_760_000_000.0,
    **shape: Any,
) -> StudyResults:
    """Every trial of a plan, with losses that follow a power law of the size and a parabola of the
    learning rate; enough of them for a verdict.

    Args:
        config: None: `shape`, for `make_config`.
        gap: nats by which LIFT is better, at every size.
        model, train: fingerprints.
        finished: when the trials ended, seconds since the epoch.
    """
    if config is None:
        shape = {"sizes": SIZES, "trials": 3, "overrides": DRAWN_FROM} | shape
        config = make_config(**shape)
    plan = plan_trials(config, ModelFacts(4, PROBE))
    random = np.random.default_rng(config.seed)
    search = [_trained(spec, gap, random, finished) for spec in plan.search]
    confirm: list[TrialRecord] = []
    for cell in plan.cells:
        mine = [trial for trial in search if cell_of(trial.spec) == cell]
        winner = winner_of(mine, config.search.trials)
        assert winner is not None  # all of them are complete
        specs = plan.confirm(cell, winner.spec.hyperparameters)
        confirm += [_trained(spec, gap, random, finished) for spec in specs]
    losses = tuple(BASE_LOSS + 0.01 * (k % 7 - 3) for k in range(210))
    return StudyResults(
        config=config,
        trials=(*search, *confirm),
        base=BaseModelRecord(BASE_LOSS, BASE_LOSS, 3.9, losses),
        data=DataSummary("aa11", 5000, 200, 210, 100, 0, 0, 0, 90.0, 60.0),
        probe=PROBE,
        model_parameters=1_000_000,
        model_fingerprint=model,
        train_fingerprint=train,
        num_blocks=4,
    )


def write_store(results: StudyResults) -> StudyStore:
    """Put a study on record at its ``config.database_url``, trial by trial as its driver does."""
    store = StudyStore.create(results.config)
    assert results.base is not None and results.data is not None and results.probe is not None
    for key, value in {
        "num_blocks": results.num_blocks,
        "tied": results.tied,
        "model_parameters": results.model_parameters,
        "base": results.base.to_dict(),
        "data": results.data.to_dict(),
        "probe": results.probe.to_dict(),
        "model_fingerprint": results.model_fingerprint,
        "train_fingerprint": results.train_fingerprint,
    }.items():
        store.set_info(key, value)
    plan = store.plan()
    assert plan is not None  # the model is known
    for trial in results.trials:
        _write(store, plan, trial)
    return store


def _trained(
    spec: TrialSpec, gap: float, random: np.random.Generator, finished: float
) -> TrialRecord:
    rate = math.log10(spec.hyperparameters["learning_rate"] / 2e-4)
    loss = 3.0 + 4.0 * spec.size**-0.5 + 0.01 * rate**2 + 0.004 * float(random.normal())
    loss -= gap if spec.arm == "lift" else 0.0
    made = make_trial(score=loss, test_loss=loss, retention_loss=4.0, steps=spec.steps)
    assert made.outcome is not None
    early, last = made.measurements[-2:]  # it had ended to learn
    outcome = dataclasses.replace(
        made.outcome,
        device_seconds=20.0 + 0.1 * float(random.normal()),
        phases=(),
        test_loss=loss if spec.stage is Stage.CONFIRM else None,
        test_losses=tuple(loss + 0.01 * (k % 5 - 2) for k in range(210))
        if spec.stage is Stage.CONFIRM
        else (),
    )
    return TrialRecord(
        spec,
        made.state,
        (dataclasses.replace(early, validation_loss=loss + 0.001), last),
        outcome,
        started=finished - 60.0,
        finished=finished,
    )


def _write(store: StudyStore, plan: StudyPlan, trial: TrialRecord) -> None:
    spec = begin_trial(plan, store, trial.spec)
    for measurement in trial.measurements:
        store.report(spec, measurement)
    assert trial.outcome is not None  # it has finished
    store.finish(spec, trial.state, trial.outcome)


def measurement(step: int, loss: float) -> Measurement:
    return Measurement(
        step=step, tokens=10, epoch=1.0, phase=0, train_loss=loss, validation_loss=loss,
        learning_rate=1e-4, grad_norm=1.0, clipped_share=0.0, tokens_per_second=1.0,
        seconds=1.0, device_seconds=2.0, peak_memory_bytes=1,
    )  # fmt: skip
