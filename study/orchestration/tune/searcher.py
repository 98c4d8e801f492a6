"""A Ray Tune searcher that walks the plan."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from study.orchestration.groups.pool import WorkerPool
from study.orchestration.ledger.ledger import Ledger


class PlanSearcher(Searcher):
    """Gives Tune the ledger's next trial, and the ledger what Tune says of it.

    Tune's own trial ids are mapped to the plan's. Nothing is saved or restored here: a study
    continues from its store with a new Tuner.

    Attributes:
        not_booked: why a trial's end is not on record; None while all are.
    """

    def __init__(self, ledger: Ledger, pool: WorkerPool) -> None:
        super().__init__()
        self.ledger, self.pool = ledger, pool
        self.trial_ids: dict[str, str] = {}
        self.not_booked: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        spec = self.ledger.next()
        if spec is not None:
            self.trial_ids[trial_id] = spec.trial_id
            task = {"spec": spec.to_dict(), "prefix_cache": self.ledger.prefix_cache_pays}
            self.pool.submit(spec.trial_id, task, self.ledger.wants_verdicts(spec))
            return {"task_id": spec.trial_id, "switchboard": self.pool.name}
        return Searcher.FINISHED if self.ledger.has_nothing_to_start else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        task_id = self.trial_ids.pop(trial_id, None)
        if task_id is None:  # Tune tells a trial's end again when booking the first one failed
            return
        try:
            self._book(task_id, result or {}, error)
        except Exception as failure:
            self.not_booked = failure
            raise

    def _book(self, task_id: str, result: dict[str, Any], error: bool) -> None:
        if error:
            if self.pool.broken:
                self.ledger.interrupted(task_id)
            elif self.ledger.lost(task_id):
                self.pool.stop(task_id)
        elif "interrupted" in result:
            self.ledger.interrupted(task_id)
        else:
            self.ledger.job(task_id, result.get("job", ""))
            self.ledger.ended(task_id, result.get("outcome"))
            self.pool.forget(task_id)

    def __getstate__(self) -> dict[str, Any]:
        # Tuner pickles its parts for Tuner.restore, which is not used; a database connection
        # cannot be pickled.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune would pickle the searcher, and the store already has everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing, as `save`."""
