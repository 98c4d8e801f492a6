from __future__ import annotations

from typing import Any

import pytest

from study.config.load import TrainingConfig, ZeroConfig
from study.training.engine.zero import deepspeed_config, resolve_micro_batch_size


def config(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "training": TrainingConfig(global_batch_size=16),
        "zero": ZeroConfig(stage=2),
        "hyperparameters": {"max_grad_norm": 0.7},
        "world_size": 2,
        "micro_batch_size": 4,
        "precision": "fp32",
        "active_parameters": 1600,
        "parameters": 6400,
        "device_type": "cpu",
    }
    return deepspeed_config(**{**arguments, **changes})


def test_batch_sizes_agree_as_deepspeed_demands() -> None:
    made = config()
    assert made["train_batch_size"] == 16
    assert made["train_micro_batch_size_per_gpu"] == 4
    assert made["gradient_accumulation_steps"] == 2


def test_clipping_comes_from_the_hyperparameters_and_defaults_to_one() -> None:
    assert config()["gradient_clipping"] == 0.7
    assert config(hyperparameters={})["gradient_clipping"] == 1.0


def test_buckets_hold_an_eighth_of_what_trains() -> None:
    section = config(active_parameters=80_000_000)["zero_optimization"]
    assert section["reduce_bucket_size"] == section["allgather_bucket_size"] == 10_000_000
    huge = config(active_parameters=7_000_000_000)["zero_optimization"]
    assert huge["reduce_bucket_size"] == 50_000_000


def test_buckets_are_no_larger_than_what_trains_and_no_smaller_than_a_mebibyte() -> None:
    assert config()["zero_optimization"]["reduce_bucket_size"] == 1600
    assert config(active_parameters=1601)["zero_optimization"]["allgather_bucket_size"] == 1602
    assert config(active_parameters=2**20)["zero_optimization"]["reduce_bucket_size"] == 2**18


def test_stage_3_keeps_no_more_gathered_than_it_uses() -> None:
    section = config(zero=ZeroConfig(stage=3))["zero_optimization"]
    assert section["stage3_max_live_parameters"] == 3200
    assert section["stage3_max_reuse_distance"] == 0
    # A sub-group is counted by a rank's own half, a bucket by whole tensors.
    assert section["reduce_bucket_size"] == 2 * section["sub_group_size"] == 1600
    assert section["stage3_param_persistence_threshold"] == 6
    large = config(zero=ZeroConfig(stage=3), parameters=7_000_000_000)["zero_optimization"]
    assert large["stage3_param_persistence_threshold"] == 100_000


def test_optimizer_and_scheduler_stay_with_the_study() -> None:
    assert not {"optimizer", "scheduler"} & set(config())


def test_parameters_are_offloaded_on_stage_3_only() -> None:
    for stage in (2, 3):
        zero = ZeroConfig(stage=3, offload_parameters="cpu").model_copy(update={"stage": stage})
        assert ("offload_param" in config(zero=zero)["zero_optimization"]) is (stage == 3)


def test_memory_is_pinned_for_gpus_only() -> None:
    zero = ZeroConfig(stage=2, offload_optimizer="cpu")
    for device, pinned in (("cpu", False), ("cuda", True)):
        section = config(zero=zero, device_type=device)["zero_optimization"]
        assert section["offload_optimizer"] == {"device": "cpu", "pin_memory": pinned}


def test_overrides_win_key_by_key() -> None:
    zero = ZeroConfig(stage=2, overrides={"zero_optimization": {"reduce_bucket_size": 7}})
    section = config(zero=zero)["zero_optimization"]
    assert section["reduce_bucket_size"] == 7
    assert section["stage"] == 2


@pytest.mark.parametrize(
    ("global_batch", "asked", "workers", "expected"),
    [(16, None, 1, 8), (16, None, 2, 8), (16, None, 4, 4), (16, 2, 1, 2), (4, 8, 2, 2)],
)
def test_micro_batch_is_the_largest_that_needs_no_accumulation_up_to_8(
    global_batch: int, asked: int | None, workers: int, expected: int
) -> None:
    training = TrainingConfig(global_batch_size=global_batch)
    training = training.model_copy(update={"micro_batch_size_per_worker": asked})
    assert resolve_micro_batch_size(training, workers) == expected
