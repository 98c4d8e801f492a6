"""Whether trials fit: now, once the cluster is idle, or once its autoscaler has added nodes."""

from __future__ import annotations

from typing import Any

import pytest

from study.config.load import ResourcesConfig
from study.orchestration.cluster.autoscaler import NodeType, is_read_only
from study.orchestration.preflight.base import Checklist, CheckResult, Status
from study.orchestration.preflight.resources import check_resources

LAPTOP = {"CPU": 2.0}
GPU_NODE = {"CPU": 32.0, "GPU": 8.0}
SIXTY_FOUR = ResourcesConfig(workers_per_trial=64, gpus_per_worker=1)


def judge(resources: ResourcesConfig, nodes: list[dict[str, float]], **changes: Any) -> Any:
    arguments: dict[str, Any] = {"available": nodes, "node_types": (), **changes}
    return check_resources(resources, nodes, arguments["available"], arguments["node_types"])


def test_sixty_four_gpus_on_a_laptop_fail_with_what_there_is_and_what_to_lower() -> None:
    finding, room = judge(SIXTY_FOUR, [LAPTOP])
    assert finding.status is Status.FAIL and room.trials == 0
    assert "64 workers" in finding.found and "2 CPUs and 0 GPUs" in finding.found
    assert "Lower resources.workers_per_trial" in finding.remedy
    assert "autoscaler" not in finding.found


def test_an_autoscaler_that_can_add_enough_makes_it_a_warning() -> None:
    finding, room = judge(SIXTY_FOUR, [LAPTOP], node_types=(NodeType("a100", GPU_NODE, 8),))
    assert finding.status is Status.WARN and room.trials == 0
    assert "a100" in finding.found
    assert "asks it for them, and waits" in finding.remedy


@pytest.mark.parametrize(("count", "status"), [(None, Status.WARN), (7, Status.FAIL)])
def test_an_autoscalers_limit_counts(count: int | None, status: Status) -> None:
    finding, _ = judge(SIXTY_FOUR, [LAPTOP], node_types=(NodeType("a100", GPU_NODE, count),))
    assert finding.status is status


def test_an_autoscaler_that_cannot_be_asked_is_said_to_be_unknown() -> None:
    finding, _ = judge(SIXTY_FOUR, [LAPTOP], node_types=None)
    assert finding.status is Status.FAIL and "could not be known" in finding.found


def test_gpus_that_only_the_autoscaler_has_are_what_auto_means() -> None:
    kinds = (NodeType("a100", GPU_NODE, 2),)
    _, room = judge(ResourcesConfig(), [{"CPU": 0.0}], node_types=kinds)
    assert room.workers.gpus == 1


def test_a_busy_cluster_is_a_warning() -> None:
    resources = ResourcesConfig(workers_per_trial=2)
    finding, room = judge(resources, [GPU_NODE], available=[{"CPU": 32.0, "GPU": 1.0}])
    assert finding.status is Status.WARN and room.trials == 4
    assert "other work" in finding.found


def test_as_many_trials_as_wanted_or_fit() -> None:
    assert judge(ResourcesConfig(workers_per_trial=2), [GPU_NODE])[1].trials == 4
    asked = ResourcesConfig(workers_per_trial=2, concurrent_trials=3)
    finding, room = judge(asked, [GPU_NODE])
    assert room.trials == 3
    assert finding.found == (
        "3 trials at once of 2 workers with 1 GPU each on 1 node (32 CPUs, 8 GPUs)"
    )


def test_a_cluster_that_people_started_has_no_autoscaler() -> None:
    assert is_read_only({"autoscaler_report": {"active_nodes": {"node_ab12": 1}}})
    assert not is_read_only({"autoscaler_report": {"active_nodes": {"worker.gpu": 1}}})
    assert not is_read_only({})


def test_gpus_of_several_types_are_refused_with_what_to_set_and_so_is_another_type() -> None:
    nodes = [{**GPU_NODE, "accelerator_type:H100": 1.0}, {**GPU_NODE, "accelerator_type:A100": 1.0}]
    checks = Checklist(Quiet(), "fallback")
    checks.run("mixed", lambda: judge(ResourcesConfig(), nodes)[0])
    named = ResourcesConfig(accelerator_type="H100")
    checks.run("named", lambda: judge(named, nodes)[0])
    checks.run("other", lambda: check_resources(named, nodes, nodes, (), "A100")[0])
    mixed, fine, other = checks.results
    assert mixed.status is Status.FAIL and "1 node with A100 and 1 node with H100" in mixed.found
    assert mixed.remedy == "Set resources.accelerator_type to one of them, such as H100."
    assert fine.status is Status.PASS and fine.found.startswith("8 trials at once")
    assert other.status is Status.FAIL and "ran on A100 GPUs" in other.found
    assert "give the new study another name" in other.remedy


class Quiet:
    def working(self, text: str) -> None:
        pass

    def result(self, result: CheckResult) -> None:
        pass
