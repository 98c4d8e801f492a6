"""How many machines a study wants."""

from __future__ import annotations

from typing import Any

import pytest

from study.basics.errors import ResourceError
from study.config.models import ResourcesConfig
from study.launch import ClusterShape, cluster_shape
from tests.helpers.cluster_studies import SHAPES


@pytest.mark.parametrize(("resources", "options", "expected"), SHAPES.values(), ids=SHAPES)
def test_the_machines_are_those_counted_by_hand(
    resources: dict[str, Any], options: dict[str, Any], expected: ClusterShape
) -> None:
    assert cluster_shape(ResourcesConfig(**resources), **options) == expected


def test_more_trials_at_once_take_more_nodes() -> None:
    # 3 trials of 4 workers are 12 GPUs: two nodes of 8, which hold 4 trials; 3 are wanted.
    resources = ResourcesConfig(workers_per_trial=4, concurrent_trials=3)
    assert cluster_shape(resources) == ClusterShape(2, 1, 3, 9, 8)


def test_a_trial_may_be_wider_than_a_node() -> None:
    shape = cluster_shape(ResourcesConfig(workers_per_trial=16), nodes=4)
    assert (shape.nodes_per_trial, shape.trials) == (2, 2)


def test_workers_that_share_a_gpu_are_never_split_over_two() -> None:
    # At 0.4 each two fit on a GPU and a fifth is idle; 5 workers take 3 GPUs, not 2.
    resources = ResourcesConfig(workers_per_trial=5, gpus_per_worker=0.4)
    assert cluster_shape(resources).gpus_per_node == 3


def test_cpus_can_be_what_is_scarce() -> None:
    resources = ResourcesConfig(workers_per_trial=4, cpus_per_worker=4, gpus_per_worker=1)
    shape = cluster_shape(resources, gpus_per_node=8, cpus_per_node=9)
    assert shape.nodes_per_trial == 2  # one CPU is Ray's, the other eight hold two workers


def test_auto_gpus_are_none_where_the_nodes_have_none() -> None:
    shape = cluster_shape(ResourcesConfig(workers_per_trial=2), gpus_per_node=0)
    assert (shape.gpus_per_node, shape.cpus_per_node) == (0, 3)


def test_only_gpu_counts_that_exist_are_chosen() -> None:
    resources = ResourcesConfig(workers_per_trial=3)
    assert cluster_shape(resources, gpu_counts=(1, 4, 8)).gpus_per_node == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_node": 0}, "holds no worker"),
        ({"cpus_per_node": 1}, "holds no worker"),
        ({"nodes": 1, "gpus_per_node": 4}, "take 4 nodes with 4 workers each; --nodes is 1"),
    ],
)
def test_machines_that_hold_no_trial_are_refused(options: dict[str, Any], message: str) -> None:
    resources = ResourcesConfig(workers_per_trial=16, gpus_per_worker=1)
    with pytest.raises(ResourceError, match=message):
        cluster_shape(resources, **options)
