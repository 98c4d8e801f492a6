"""Studies on real raylets that come and go: a trial over two of them, and nodes that stay away."""

from __future__ import annotations

from typing import Any

import pytest

from study import open_study
from tests.orchestration.chaos import all_facts
from tests.orchestration.nodes import FIRST, Run, head_alone, kill, make_study, workers_on

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_a_trial_over_two_nodes_waits_when_one_is_lost_and_goes_on_when_another_comes(
    tmp_path_factory: pytest.TempPathFactory, wide: dict[str, Any]
) -> None:
    path = make_study(tmp_path_factory, "span", workers_per_trial=2, cpus_per_worker=1)
    with head_alone() as cluster:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        run = Run(path, cluster.address)
        try:
            run.until(run.trains(FIRST))
            assert [len(workers_on(node)) for node in nodes] == [1, 1]
            kill(cluster, nodes[1])
            run.until(run.says("not one trial fits on the others. Waiting for nodes for 30 min"))
            cluster.add_node(num_cpus=1)
            run.until(run.says("Going on: a node joined; 1 trial runs at once"))
            assert run.end() == 0, run.output
        finally:
            run.stop()
    first = next(t for t in open_study(path).results().trials if t.spec.trial_id == FIRST)
    assert first.outcome is not None and "another worker group" in first.outcome.notes[0]
    log = (path.parent / "results" / "logs" / f"{FIRST}.log").read_text()
    assert "attempt 2" in log
    assert all_facts(path) == wide


def test_a_study_whose_nodes_stay_away_stops_says_why_and_goes_on_another_time(
    tmp_path_factory: pytest.TempPathFactory, narrow: dict[str, Any]
) -> None:
    path = make_study(tmp_path_factory, "away", wait_for_nodes_minutes=0.1)
    with head_alone() as cluster:
        node = cluster.add_node(num_cpus=1)
        run = Run(path, cluster.address)
        try:
            run.until(run.trains(FIRST))
            kill(cluster, node)
            assert run.end(limit_seconds=90) == 1, run.output
            told = " ".join(run.output.split())
            assert "No node came within 6 s on which a trial could run" in told
            assert "run the study again" in told
            cluster.add_node(num_cpus=1)
            run = Run(path, cluster.address)
            assert run.end() == 0, run.output
        finally:
            run.stop()
    assert all_facts(path) == narrow
