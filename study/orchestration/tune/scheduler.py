"""A Ray Tune trial scheduler that books evaluations and asks the replicate's Optuna pruner."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.orchestration.tune.searcher import PlanSearcher


class PrunerScheduler(FIFOScheduler):
    """Stops a trial when the ledger's pruner says so; order is the searcher's business.

    Tune shows every result to the scheduler first and to the searcher only if the trial goes
    on, so this is where an evaluation is booked, and its verdict told to the trial's workers.
    """

    def __init__(self, searcher: PlanSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as PlanSearcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        measurement = result.get("measurement")
        if measurement is None:  # the trial's last result, with its outcome
            return TrialScheduler.CONTINUE
        ledger, pool = self._searcher.ledger, self._searcher.pool
        task_id = self._searcher.trial_ids[trial.trial_id]
        ledger.job(task_id, result["job"])
        goes_on = ledger.measured(task_id, measurement)
        pool.decide(task_id, measurement.step, goes_on)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
