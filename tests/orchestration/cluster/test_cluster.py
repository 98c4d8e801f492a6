"""What fits on a cluster, from the nodes' resources."""

from __future__ import annotations

import pytest

from study.basics.errors import ResourceError
from study.config.load import ResourcesConfig
from study.orchestration.cluster.cluster import (
    choose_workers,
    device_of,
    may_span_nodes,
    trials_that_fit,
)
from study.orchestration.cluster.workers import Workers

LAPTOP = {"CPU": 2.0}
GPU_NODE = {"CPU": 32.0, "GPU": 4.0}


def test_workers_take_a_gpu_each_where_the_cluster_has_gpus() -> None:
    resources = ResourcesConfig(workers_per_trial=2)
    assert choose_workers(resources, [LAPTOP]).gpus == 0
    assert choose_workers(resources, [LAPTOP, GPU_NODE]).gpus == 1


def test_an_explicit_zero_keeps_a_gpu_cluster_on_its_cpus() -> None:
    assert choose_workers(ResourcesConfig(gpus_per_worker=0), [GPU_NODE]).gpus == 0


@pytest.mark.parametrize(
    ("workers", "nodes", "trials"),
    [
        (Workers(2, 1, 0), [LAPTOP], 1),
        (Workers(2, 0.5, 0), [LAPTOP], 2),
        (Workers(4, 1, 1), [GPU_NODE, GPU_NODE], 2),
        (Workers(8, 1, 1), [GPU_NODE, GPU_NODE], 1),
        (Workers(3, 1, 1), [GPU_NODE, GPU_NODE], 2),
        (Workers(1, 20, 1), [GPU_NODE, GPU_NODE], 2),  # CPUs run out before GPUs
    ],
)
def test_as_many_trials_fit_as_the_nodes_hold(
    workers: Workers, nodes: list[dict[str, float]], trials: int
) -> None:
    assert trials_that_fit(workers, nodes) == trials


@pytest.mark.parametrize(
    ("workers", "nodes"),
    [
        (Workers(3, 1, 0), [LAPTOP]),
        (Workers(1, 4, 0), [LAPTOP, LAPTOP]),  # enough in all, but on no single node
        (Workers(1, 1, 1), [LAPTOP]),
        (Workers(1, 1, 0), []),
    ],
)
def test_what_no_node_can_hold_is_refused_with_what_there_is(
    workers: Workers, nodes: list[dict[str, float]]
) -> None:
    with pytest.raises(ResourceError, match=r"resources: a trial needs .* Lower resources"):
        trials_that_fit(workers, nodes)


H100, A100 = {**GPU_NODE, "accelerator_type:H100": 1.0}, {**GPU_NODE, "accelerator_type:A100": 1.0}


def test_the_only_type_of_gpu_is_what_the_study_asks_for() -> None:
    workers = choose_workers(ResourcesConfig(), [LAPTOP, H100, H100])
    assert device_of(workers) == "H100"
    scaling = workers.scaling()
    assert scaling._resources_per_worker_not_none["accelerator_type:H100"] == 0.001
    # A node of another type that joins later is not used.
    assert trials_that_fit(workers, [LAPTOP, H100, A100, GPU_NODE]) == 4


def test_gpus_of_several_types_are_refused_until_one_is_named() -> None:
    nodes = [H100, A100, A100]
    with pytest.raises(ResourceError, match=r"2 nodes with A100 and 1 node with H100; a study"):
        choose_workers(ResourcesConfig(), nodes)
    workers = choose_workers(ResourcesConfig(accelerator_type="H100"), nodes)
    assert trials_that_fit(workers, nodes) == 4
    # On CPUs nobody cares.
    assert device_of(choose_workers(ResourcesConfig(gpus_per_worker=0), nodes)) == "CPU"


def test_a_type_that_no_node_has_is_refused_with_those_there_are() -> None:
    workers = choose_workers(ResourcesConfig(accelerator_type="h100"), [H100])
    with pytest.raises(ResourceError, match=r"4 GPUs \(H100\), room for 0. Change resources.accel"):
        trials_that_fit(workers, [H100])


def test_a_study_goes_on_with_the_type_it_began_on() -> None:
    workers = choose_workers(ResourcesConfig(), [H100, A100], on_record="A100")
    assert device_of(workers) == "A100"
    assert device_of(choose_workers(ResourcesConfig(), [LAPTOP], on_record="CPU")) == "CPU"


@pytest.mark.parametrize(
    ("resources", "nodes", "on_record", "told"),
    [
        (ResourcesConfig(), [H100], "A100", "ran on A100 GPUs, and these would run on H100 GPUs"),
        (ResourcesConfig(), [LAPTOP], "A100", "ran on A100 GPUs, and these would run on CPUs"),
        (ResourcesConfig(), [H100], "CPU", "ran on CPUs, and these would run on H100 GPUs"),
        (ResourcesConfig(), [GPU_NODE], "CPU", "ran on CPUs, and these would run on GPUs"),
        (ResourcesConfig(accelerator_type="H100"), [H100, A100], "A100", "Continue the study on A"),
    ],
)
def test_a_study_on_record_from_another_type_is_refused(
    resources: ResourcesConfig, nodes: list[dict[str, float]], on_record: str, told: str
) -> None:
    with pytest.raises(ResourceError, match=told):
        choose_workers(resources, nodes, on_record)


def test_gpus_on_record_are_waited_for_where_nodes_may_come() -> None:
    """An autoscaler has let the GPU nodes go; the head has none."""
    workers = choose_workers(ResourcesConfig(), [LAPTOP], "A100", nodes_may_come=True)
    assert device_of(workers) == "A100" and workers.gpus == 1
    with pytest.raises(ResourceError, match="A100"):
        trials_that_fit(workers, [LAPTOP])
    assert device_of(choose_workers(ResourcesConfig(), [LAPTOP], None, True)) == "CPU"


def test_gpus_that_ray_could_not_name_once_are_taken_for_any() -> None:
    assert device_of(choose_workers(ResourcesConfig(), [H100], on_record="GPU")) == "H100"
    assert device_of(choose_workers(ResourcesConfig(), [GPU_NODE], on_record="H100")) == "GPU"


@pytest.mark.parametrize(
    ("workers", "nodes", "spans"),
    [
        (Workers(1, 1, 1), [GPU_NODE, GPU_NODE], False),
        (Workers(2, 1, 1), [GPU_NODE, GPU_NODE], False),
        (Workers(3, 1, 1), [GPU_NODE, GPU_NODE], True),
        (Workers(8, 1, 1), [GPU_NODE, GPU_NODE], True),
        (Workers(4, 1, 1), [GPU_NODE, LAPTOP], False),
    ],
)
def test_trials_span_nodes_only_where_a_node_holds_no_whole_number_of_them(
    workers: Workers, nodes: list[dict[str, float]], spans: bool
) -> None:
    assert may_span_nodes(workers, nodes) == spans
