"""What fits on a cluster, from the nodes' resources."""

from __future__ import annotations

import pytest

from study.config import ResourcesConfig
from study.errors import ResourceError
from study.orchestration.cluster import choose_workers, trials_that_fit
from study.orchestration.worker_group import Workers

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
