"""How many trials the cluster holds, as its nodes come and go."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from study.basics.errors import ResourceError
from study.basics.text_format import duration
from study.config.load import ResourcesConfig
from study.orchestration.cluster import cluster
from study.orchestration.cluster.autoscaler import Demand, autoscaler_node_types, could_fit
from study.orchestration.cluster.workers import Workers

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks at the nodes; Ray itself finds out within seconds to a quarter of a minute."""

Nodes = Sequence[Mapping[str, float]]


def find_capacity(
    resources: ResourcesConfig, on_record: str | None, tell: Callable[[str], None]
) -> Capacity:
    """The running cluster's, once it holds a trial: its autoscaler may have to add nodes first.

    Args:
        on_record: see `cluster.choose_workers`.
        tell: told of every change, one line.

    Raises:
        ResourceError: no trial fits and no autoscaler adds what is missing; the GPUs are of
            several types, or of another one than the study's results.
    """
    types = autoscaler_node_types()
    demand = None if types == () else Demand()
    patience = 60 * resources.wait_for_nodes_minutes
    until, told = time.monotonic() + patience, False
    while True:
        nodes = cluster.living_nodes()
        everything = [*nodes, *(kind.resources for kind in types or ())]
        workers = cluster.choose_workers(resources, everything, on_record, demand is not None)
        try:
            return Capacity(workers, resources, tell, demand)
        except ResourceError:
            may_come = types is None or could_fit(workers, nodes, types)
            if demand is None or not may_come or time.monotonic() >= until:
                raise
        if not told:
            tell(f"Not one trial fits yet. Waiting for nodes for {duration(patience)}")
            told = True
        demand.show(workers, 1)
        time.sleep(LOOK_SECONDS)


class Capacity:
    """Watches the living nodes, and says what has changed.

    A node that joins adds what it holds; trials on one that leaves go on elsewhere, and fewer run.
    When not one trial fits any more the study waits for nodes, and stops after a while. An
    autoscaler is shown what waits.

    Args:
        workers: the shape of a trial's worker group.
        resources: how many trials are wanted, and how long to wait for nodes.
        tell: told of every change, one line.
        demand: of the cluster's autoscaler; None: there is none.
        nodes: total resources of each living node.
        clock: seconds.

    Attributes:
        trials: that may run at once; 0 while the study waits for nodes.
        missed: why it has waited for long enough; empty until then.
        backlog: trials that could run now if there were room for them.
        nodes_left: how many nodes have left so far.

    Raises:
        ResourceError: not one trial fits at the start.
    """

    def __init__(
        self,
        workers: Workers,
        resources: ResourcesConfig,
        tell: Callable[[str], None] = log.info,
        demand: Demand | None = None,
        nodes: Callable[[], Nodes] = cluster.living_nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers, self.missed = workers, ""
        self.backlog = self.nodes_left = 0
        self._wanted = resources.concurrent_trials
        self._patience = 60 * resources.wait_for_nodes_minutes
        self._tell, self._demand = tell, demand
        self._nodes, self._clock = nodes, clock
        self._waiting_since = math.inf
        found = nodes()
        self.trials = self._most(cluster.trials_that_fit(workers, found))
        self._node_count, self._looked = len(found), clock()

    def look(self, *, at_once: bool = False) -> int:
        """`trials`, from a look at the nodes that is not older than two seconds.

        Args:
            at_once: not older at all.
        """
        if not at_once and self._clock() - self._looked < LOOK_SECONDS:
            return self.trials
        nodes = self._nodes()
        self._looked = self._clock()
        try:
            fitting, why = cluster.trials_that_fit(self.workers, nodes), ""
        except ResourceError as error:
            fitting, why = 0, str(error)
        trials, before = self._most(fitting), self.trials
        count, count_before = len(nodes), self._node_count
        # All that is known first: who is told of it may raise.
        self.trials, self._node_count = trials, count
        self.nodes_left += max(0, count_before - count)
        if trials != before:
            self._waiting_since = math.inf if trials else self._looked
        elif not trials and self._looked - self._waiting_since >= self._patience:
            self.missed = self.missed or (
                f"No node came within {duration(self._patience)} on which a trial could run "
                f"({why.removeprefix('resources: ').partition('. ')[0]})."
            )
        if trials != before:
            self._tell_change(trials, before, count - count_before)
        if self._demand is not None:
            wanted = self._most(max(self.backlog, 1 - trials))
            self._demand.show(self.workers, max(0, wanted - trials))
        return trials

    def _most(self, fitting: int) -> int:
        return fitting if self._wanted == "auto" else min(fitting, self._wanted)

    def _tell_change(self, trials: int, before: int, more_nodes: int) -> None:
        what = "joined" if more_nodes > 0 else "left"
        cause = "A node" if abs(more_nodes) == 1 else "Nodes"
        if not trials:
            self._tell(
                f"{cause} left, and not one trial fits on the others. Waiting for nodes for "
                f"{duration(self._patience)}; trials go on from their checkpoints"
            )
            return
        again = "Going on: " if not before else ""
        counted = f"{trials} {'trial runs' if trials == 1 else 'trials run'}"
        self._tell(f"{again}{cause.lower() if again else cause} {what}; {counted} at once")
