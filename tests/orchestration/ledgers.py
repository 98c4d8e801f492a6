"""Ledgers on real stores, and trials that are trained by a formula."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.orchestration.ledger.ledger import Ledger
from study.orchestration.observer import QuietObserver
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import TrialOutcome, TrialSpec, TrialState
from study.store.study_store import StudyStore
from tests.helpers.results import make_config
from tests.helpers.stores import measurement
from tests.tiers import thinned

SEARCHES = thinned(
    itertools.product(["sobol", "tpe", "random"], ["none", "asha", "median"]),
    lambda *search: search in {("sobol", "none"), ("tpe", "asha"), ("random", "median")},
)
"""Samplers and pruners."""


def make_plan(
    folder: Path, *, sections: Mapping[str, Any] | None = None, **search: Any
) -> StudyPlan:
    """Two arms, two sizes, one replicate of three trials, two confirm seeds, unless told."""
    wanted: dict[str, Any] = {
        "dataset_sizes": [64, 128],
        "confirm": {"seeds": 2},
        "search": {"trials": 3, "replicates": 1, **search},
        "training": {"global_batch_size": 8, "steps": 40, "evaluations": 4},
        "storage": {"results": str(folder)},
    }
    return plan_trials(make_config(**(wanted | dict(sections or {}))), ModelFacts(4))


def make_ledger(plan: StudyPlan, concurrent: int = 100, **more: Any) -> Ledger:
    store = StudyStore.create(plan.resolved)
    store.set_info("num_blocks", 4)
    return Ledger(plan, store, more.pop("observer", QuietObserver()), concurrent, **more)


def loss_of(spec: TrialSpec, step: int) -> float:
    """A fixed landscape: lowest at 3e-5, falling with the steps."""
    return abs(spec.hyperparameters["learning_rate"] - 3e-5) * 1e5 + 1 / step


def train(ledger: Ledger, spec: TrialSpec) -> None:
    """What Ray Tune and the workers would make of a trial."""
    for step in spec.evaluation_steps:
        if not ledger.measured(spec.trial_id, measurement(step, loss_of(spec, step))):
            ledger.ended(spec.trial_id, None)
            return
    score = loss_of(spec, spec.steps)
    ledger.ended(spec.trial_id, TrialOutcome("finished", score=score, best_step=spec.steps))


def run_all(ledger: Ledger, rng: random.Random | None = None) -> list[TrialSpec]:
    """Hand out and train everything, in random order of completion if `rng` is given."""
    started: list[TrialSpec] = []
    running: list[TrialSpec] = []
    while not ledger.is_done:
        while (spec := ledger.next()) is not None:
            started.append(spec)
            running.append(spec)
        train(ledger, running.pop(rng.randrange(len(running)) if rng else 0))
    return started


def outcomes(plan: StudyPlan) -> dict[str, tuple[TrialState, float | None, str]]:
    results = StudyStore.open(plan.resolved.database_url).results()
    return {
        r.spec.trial_id: (r.state, r.score, str(r.spec.hyperparameters)) for r in results.trials
    }
