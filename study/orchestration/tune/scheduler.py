"""A Ray Tune trial scheduler that books evaluations and asks the replicate's Optuna pruner."""

from __future__ import annotations

from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.orchestration.ledger.ledger import Ledger
from study.orchestration.tune.searcher import PlanSearcher, read_measurement


class PrunerScheduler(FIFOScheduler):
    """Stops a trial when the ledger's pruner says so; order is the searcher's business.

    Tune shows every result to the scheduler first and to the searcher only if the trial goes
    on, so this is where an evaluation is booked.
    """

    def __init__(self, ledger: Ledger, searcher: PlanSearcher) -> None:
        super().__init__()
        self._ledger, self._searcher = ledger, searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as PlanSearcher

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        measurement = read_measurement(result)
        if measurement is None:
            return TrialScheduler.CONTINUE
        task_id = self._searcher.trial_ids[trial.trial_id]
        self._ledger.job(task_id, result["job"])
        goes_on = self._ledger.measured(task_id, measurement)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
