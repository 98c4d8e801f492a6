"""What the driver does at every turn of Ray Tune's loop, before Tune asks for trials."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from study.orchestration.tune.searcher import PlanSearcher


class Driver(Callback):
    """Keeps the ledger in step with the cluster, and ends a study that cannot be booked."""

    def __init__(self, searcher: PlanSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as PlanSearcher

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self.tick()

    def tick(self) -> None:
        """Raises what kept the end of a trial from being booked: Tune logged it and went on, and
        the study would end as if nothing were missing."""
        if self._searcher.not_booked is not None:
            raise self._searcher.not_booked
        ledger, pool = self._searcher.ledger, self._searcher.pool
        ledger.limit = pool.follow(ledger.backlog)
        if pool.has_given_up:
            ledger.pause()
