"""What real workers hold during phases and after them."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any
from unittest import mock

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from study.config.load import ZeroConfig
from study.strategies import make_strategy
from study.strategies.base import Phase
from study.training.engine.memory import held_bytes
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from tests.helpers.live import LiveBytes
from tests.helpers.models import tiny_model
from tests.helpers.whole_weights import full_state
from tests.helpers.workers import (
    difference,
    global_batches,
    group_phases,
    phase_engine,
    share,
    train,
)

STAGES = (0, 1, 2, 3)


WORLD_SIZE = 2


PHASES = ("top", "middle", "bottom", "full", "three rates")


LOOK_EVERY = 4
"""Phases: of all four groups. A look walks all of the process's objects."""


def wide_model(precision: str) -> LlamaForCausalLM:
    """Parameters enough (6.7 million) to make a few tokens' activations negligible."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        num_hidden_layers=8,
        intermediate_size=704,
        num_attention_heads=4,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    return model.to(torch.bfloat16 if precision == "bf16" else torch.float32)


def measure_phase(
    model: LlamaForCausalLM, phase: Phase, stage: int, precision: str, live: LiveBytes
) -> dict[str, int]:
    ids = torch.randint(3, 500, (2, 8))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    between: list[int] = []
    live.peak = 0
    zero = ZeroConfig(stage=stage)
    with phase_engine(
        model,
        phase.parameters,
        stage,
        WORLD_SIZE,
        factors=phase.learning_rate_factors,
        zero=zero,
        precision=precision,
    ) as engine:
        build = live.peak
        watch = model.register_forward_pre_hook(lambda *_: between.append(live.now))
        for _ in range(2):
            live.peak = 0
            engine.train_step([batch, batch], make_loss("causal-lm"), 1e-4)
        watch.remove()
        held = held_bytes(engine)
        frozen = [p for n, p in model.named_parameters() if n not in phase.parameters]
        return {
            "between": between[-1],
            "after": live.now,
            "peak": live.peak,
            "build": build,
            "weights": held.weights,
            "state": held.state,
            "watched steady": engine.watch.steady,
            "watched peak": engine.watch.peak,
            "watching": len(engine.engine.basic_optimizer._optimizer_step_pre_hooks),
            "gradients": held.gradients,
            "master": held.master,
            "moments": held.moments,
            "frozen gradients": sum(p.grad is not None for p in frozen),
            "largest": max(getattr(p, "ds_numel", p.numel()) for p in model.parameters()),
        }


def measure(kinds: Sequence[tuple[str, int]], rank: int, world_size: int) -> dict[str, Any]:
    """All phases, one after the other, in each precision and on each stage that is asked for."""
    found: dict[str, Any] = {}
    for precision, stage in kinds:
        with LiveBytes() as live:
            model = wide_model(precision)
            layout = find_layout(model)
            top, middle, _, bottom = make_strategy("lift", {"group_size": 2}, {}).phases(layout, 4)
            (full,) = make_strategy("full", {}, {}).phases(layout, 4)
            slowing = {"group_size": 2, "cumulative": True, "group_lr_decay": 0.5}
            rates = make_strategy("lift", slowing, {}).phases(layout, 4)[2]
            phases = (top, middle, bottom, full, rates)
            for name, phase in zip(PHASES, phases, strict=True):
                one = measure_phase(model, phase, stage, precision, live)
                one["parameters"] = layout.count(layout.parameters)
                one["active"] = layout.count(phase.parameters)
                gc.collect()
                one["closed"] = live.now
                found[f"{precision}-{stage}-{name}"] = one
            del model
    return found


def measure_stock(rank: int, world_size: int) -> dict[str, Any]:
    """The full phase on stage 0 with DeepSpeed's own optimizer instead of the lean one."""
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

    with (
        mock.patch("study.training.deepspeed_internals.LeanStage0", FP16_UnfusedOptimizer),
        LiveBytes() as live,
    ):
        model = wide_model("bf16")
        (full,) = make_strategy("full", {}, {}).phases(find_layout(model), 4)
        return {"bf16-0-full": measure_phase(model, full, 0, "bf16", live)}


def measure_offload(rank: int, world_size: int) -> dict[str, Any]:
    """Master and moment bytes with offloading; whether DeepSpeed offloads; and by how much the
    weights differ after two LIFT or full steps from those trained without."""
    found = {}
    for stage in (1, 2, 3):
        for arm, options in (("full", {}), ("lift", {"group_size": 2})):
            states = []
            for offload in ("none", "cpu"):
                model = tiny_model()
                layout = find_layout(model)
                phase = make_strategy(arm, options, {}).phases(layout, 4)[0]
                zero = ZeroConfig(stage=stage, offload_optimizer=offload)
                batches = global_batches()
                with phase_engine(model, phase.parameters, stage, world_size, zero=zero) as engine:
                    for _ in range(2):
                        mine = share(next(batches), rank, world_size, 2)
                        engine.train_step(mine, make_loss("causal-lm"), 1e-3)
                    held = held_bytes(engine)
                    own = engine.engine.optimizer
                    flag = getattr(own, "cpu_offload", None) or getattr(own, "offload_optimizer", 0)
                states.append(full_state(model))
            found[f"{stage}-{arm}"] = {
                "active": layout.count(phase.parameters),
                "master": held.master,
                "moments": held.moments,
                "offloads": bool(flag),
                "difference": difference(*states),
                "moved": difference(states[0], full_state(tiny_model())),
            }
    return found


def switch_often(
    kinds: Sequence[tuple[int, int]], rank: int, world_size: int
) -> dict[tuple[int, int], dict[str, list[float]]]:
    """What the process holds after every few of many phases, by stage and number of phases."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    gc.freeze()  # every phase ends with a collection, which need not walk all that is imported
    found = {}
    for stage, switches in kinds:
        model = tiny_model()
        phases = group_phases(find_layout(model), group_size=1, steps=4)
        counts: dict[str, list[float]] = {n: [] for n in ("objects", "engines", "bytes", "hooks")}
        counts["resident"] = []
        for switch in range(switches):
            train(model, (phases[switch % len(phases)],), stage, rank, world_size)
            if (switch + 1) % LOOK_EVERY:
                continue
            gc.collect()
            objects = gc.get_objects()
            tensors = {
                o.untyped_storage()._cdata: o.untyped_storage().nbytes()
                for o in objects
                if type(o) in (torch.Tensor, torch.nn.Parameter) and o.device.type == "cpu"
            }
            counts["objects"].append(len(objects))
            counts["engines"].append(sum(isinstance(o, DeepSpeedEngine) for o in objects))
            counts["bytes"].append(sum(tensors.values()))
            counts["hooks"].append(
                sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
                + sum(len(p._backward_hooks or ()) for p in model.parameters())
            )
            counts["resident"].append(psutil.Process().memory_info().rss)
            del objects, tensors
        found[stage, switches] = counts
    return found
