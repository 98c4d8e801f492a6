"""Two real DeepSpeed workers; `test_reference.py` compares them with plain torch."""

from __future__ import annotations

import gc
from typing import Any
from unittest import mock

import pytest
import torch
from transformers import PreTrainedModel

from study.config.load import ModelConfig, TrainingConfig
from study.strategies import make_strategy
from study.training.engine.weights import held_weights, restore_weights
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from study.training.model.load import load_model, new_head
from tests.helpers.models import CAUSAL, ENCODERS, tiny_model, tiny_model_folder
from tests.helpers.whole_weights import full_state
from tests.helpers.workers import (
    GLOBAL_BATCH,
    difference,
    global_batches,
    group_phases,
    phase_engine,
    run_workers,
    share,
    train,
)

STAGES = (0, 1, 2, 3)


def check_one_group(rank: int, world_size: int) -> dict[int, bool]:
    equal = {}
    for stage in STAGES:
        states, losses = [], []
        for arm, options in (("full", {}), ("lift", {"group_size": 4})):
            model = tiny_model()
            phases = make_strategy(arm, options, {}).phases(find_layout(model), 4)
            losses.append(train(model, phases, stage, rank, world_size))
            states.append(full_state(model))
        same = all(torch.equal(states[0][n], states[1][n]) for n in states[0])
        equal[stage] = same and losses[0] == losses[1]
    return equal


def check_leftovers(rank: int, world_size: int) -> dict[int, list[tuple[int, int, int]]]:
    """Hooks on the model, live engines and live models after each phase, then without it."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    counts: dict[int, list[tuple[int, int, int]]] = {}
    for stage in STAGES:
        model: PreTrainedModel | None = tiny_model()
        counts[stage] = []
        for phase in (*group_phases(find_layout(model), group_size=2, sweeps=2), None):
            if phase is None:
                hooks, model = 0, None
            else:
                train(model, (phase,), stage, rank, world_size)
                hooks = sum(
                    len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()
                ) + sum(len(p._backward_hooks or ()) for p in model.parameters())
            gc.collect()
            living = gc.get_objects()
            engines = sum(isinstance(o, DeepSpeedEngine) for o in living)
            models = sum(isinstance(o, PreTrainedModel) for o in living)
            counts[stage].append((hooks, engines, models))
            del living
    return counts


def check_restore(rank: int, world_size: int) -> dict[str, float]:
    """Loss right after a snapshot, and again after more steps and going back."""
    found = {}
    loss = make_loss("causal-lm")
    for stage, threshold in ((2, 0), (3, 0), (3, 10_000_000)):
        model = tiny_model()
        names = tuple(n for n, _ in model.named_parameters())
        batches = global_batches()
        (test,) = share(next(batches), rank, world_size, 4)
        overrides = {"zero_optimization": {"stage3_param_persistence_threshold": threshold}}
        values = []
        with phase_engine(model, names, stage, world_size) as engine:
            zero = engine.zero.model_copy(update={"overrides": overrides})
        with phase_engine(model, names, stage, world_size, zero=zero) as engine:
            for step in range(4):
                engine.train_step(share(next(batches), rank, world_size, 2), loss, 1e-3)
                values.append(float(loss.total(engine.evaluate(test), test)))
                if step == 1:
                    best = held_weights(model)
            engine.engine.empty_partition_cache()
            restore_weights(model, best)
            values.append(float(loss.total(engine.evaluate(test), test)))
        restore_weights(model, best)
        with phase_engine(model, names, stage, world_size, zero=zero) as engine:
            values.append(float(loss.total(engine.evaluate(test), test)))
        assert len(set(values[:4])) == 4
        found[f"{stage}-{threshold}"] = max(abs(v - values[1]) for v in values[4:])
    return found


def check_bf16(rank: int, world_size: int) -> dict[int, list[float]]:
    losses = {}
    for stage in STAGES:
        model = tiny_model().to(torch.bfloat16)
        phases = group_phases(find_layout(model), group_size=2)
        steps = train(model, phases, stage, rank, world_size, precision="bf16")
        assert all(p.dtype == torch.bfloat16 for p in model.parameters())
        losses[stage] = [s.loss for s in steps]
    return losses


def check_lean(rank: int, world_size: int) -> dict[int, bool]:
    """Whether DeepSpeed's own optimizers leave the same weights, in bf16 with clipped steps."""
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    from study.training.deepspeed_internals import LeanStage0, LeanZero

    # Adam would undo a factor that all gradients have in common.
    settings: dict[str, Any] = {
        "training": TrainingConfig(global_batch_size=GLOBAL_BATCH, optimizer="sgd", momentum=0.0),
        "hyperparameters": {"max_grad_norm": 0.05},
        "precision": "bf16",
    }
    ours = {"LeanStage0": LeanStage0, "LeanZero": LeanZero}
    theirs = {"LeanStage0": FP16_UnfusedOptimizer, "LeanZero": DeepSpeedZeroOptimizer}
    equal = {}
    for stage in (0, 1, 2):
        states = []
        for classes in (ours, theirs):
            model = tiny_model().to(torch.bfloat16)
            (phase,) = make_strategy("full", {}, {}).phases(find_layout(model), 4)
            batches = global_batches()
            with (
                mock.patch.multiple("study.training.deepspeed_internals", **classes),
                phase_engine(model, phase.parameters, stage, world_size, **settings) as engine,
            ):
                for _ in range(4):
                    mine = share(next(batches), rank, world_size, 2)
                    step = engine.train_step(mine, make_loss("causal-lm"), 1.0)
                    assert step.clipped
            states.append(full_state(model))
        moved = difference(states[0], full_state(tiny_model().to(torch.bfloat16)))
        assert moved > 1e-3
        equal[stage] = all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    return equal


def check_variants(rank: int, world_size: int) -> dict[str, float]:
    """Offload, SGD and gradient checkpointing against the same without."""
    found = {}
    for name, changes in {
        "stage 2 offload": {"offload_optimizer": "cpu"},
        "stage 3 offload": {"offload_optimizer": "cpu", "offload_parameters": "cpu"},
    }.items():
        stage = int(name.split()[1])
        states = []
        for update in ({}, changes):
            model = tiny_model()
            phases = group_phases(find_layout(model), group_size=2, steps=4)
            with phase_engine(model, phases[0].parameters, stage, world_size) as engine:
                zero = engine.zero.model_copy(update=update)
            model = tiny_model()
            train(model, phases, stage, rank, world_size, zero=zero)
            states.append(full_state(model))
        found[name] = difference(*states)
    states = []
    for checkpointing in (False, True):
        model = tiny_model()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        phases = group_phases(find_layout(model), group_size=2, steps=4)
        train(model, phases, 2, rank, world_size)
        states.append(full_state(model))
    found["checkpointing"] = difference(*states)
    return found


def check_whole_batch(rank: int, world_size: int, micro: int = 3) -> dict[str, Any]:
    model = tiny_model()
    phases = group_phases(find_layout(model))
    steps = train(model, phases, 2, rank, world_size, micro=micro)
    return {"weights": full_state(model), "losses": [s.loss for s in steps]}


def check_architectures(rank: int, world_size: int) -> dict[str, str]:
    import tempfile

    found = {}
    for architecture in [*CAUSAL, *ENCODERS]:
        task = "causal-lm" if architecture in CAUSAL else "sequence-classification"
        with tempfile.TemporaryDirectory() as folder:
            path = str(tiny_model_folder(folder, architecture))
            model = load_model(ModelConfig(path=path), task, 3, torch.float32, 0)
        layout = find_layout(model, new_head(model))
        phases = group_phases(layout, group_size=1, steps=8)
        try:
            steps = train(
                model, phases, 2, rank, world_size, micro=4, classes=0 if task == "causal-lm" else 3
            )
            found[architecture] = "ok" if all(s.finite for s in steps) else "not finite"
        except Exception as error:
            found[architecture] = f"{type(error).__name__}: {error}"
    return found


def two_workers(rank: int, world_size: int) -> dict[str, Any]:
    return {
        "one group": check_one_group(rank, world_size),
        "leftovers": check_leftovers(rank, world_size),
        "restore": check_restore(rank, world_size),
        "bf16": check_bf16(rank, world_size),
        "lean": check_lean(rank, world_size),
        "variants": check_variants(rank, world_size),
        "whole": check_whole_batch(rank, world_size),
    }


def one_worker(rank: int, world_size: int) -> dict[str, Any]:
    return {
        "whole": check_whole_batch(rank, world_size, micro=8),
    }


@pytest.fixture(scope="module")
def both() -> list[dict[str, Any]]:
    return run_workers(two_workers, 2)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return run_workers(one_worker, 1)[0]


@pytest.mark.parametrize("stage", STAGES)
def test_lift_with_one_group_equals_full_to_the_last_digit(
    both: list[dict[str, Any]], stage: int
) -> None:
    assert all(worker["one group"][stage] for worker in both)


@pytest.mark.parametrize("stage", STAGES)
def test_a_phase_leaves_no_hook_and_no_engine_and_a_trial_no_model(
    both: list[dict[str, Any]], stage: int
) -> None:
    for worker in both:
        counts = worker["leftovers"][stage]
        # The causal LM and the decoder inside it; nothing at the end.
        assert counts == [(0, 0, 2)] * 4 + [(0, 0, 0)]


@pytest.mark.parametrize("case", ["2-0", "3-0", "3-10000000"])
def test_restored_weights_give_the_loss_they_had(both: list[dict[str, Any]], case: str) -> None:
    assert all(worker["restore"][case] == 0 for worker in both)


def test_bf16_trains_alike_on_every_stage(both: list[dict[str, Any]]) -> None:
    losses = both[0]["bf16"]
    assert both[1]["bf16"] == losses
    for stage in STAGES:
        assert losses[stage] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_deepspeeds_own_optimizers_leave_the_same_bits(
    both: list[dict[str, Any]], stage: int
) -> None:
    assert all(worker["lean"][stage] for worker in both)


@pytest.mark.parametrize("variant", ["stage 2 offload", "stage 3 offload", "checkpointing"])
def test_saving_memory_changes_no_result(both: list[dict[str, Any]], variant: str) -> None:
    assert both[0]["variants"][variant] < 1e-6


def test_numbers_do_not_depend_on_the_number_of_workers_or_the_micro_batch(
    both: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    # Two workers in micro-batches of 3 and 1 examples; one worker in one of 8.
    assert difference(both[0]["whole"]["weights"], alone["whole"]["weights"]) < 1e-5
    assert both[0]["whole"]["losses"] == pytest.approx(alone["whole"]["losses"], abs=1e-5)


@pytest.fixture(scope="module")
def architectures() -> dict[str, str]:
    return run_workers(check_architectures, 1)[0]


@pytest.mark.exhaustive  # `test_reference.py` trains all of them in larger groups
@pytest.mark.parametrize("architecture", [*CAUSAL, *ENCODERS])
def test_every_architecture_passes_a_lift_phase_per_group_and_its_audit(
    architectures: dict[str, str], architecture: str
) -> None:
    assert architectures[architecture] == "ok"
