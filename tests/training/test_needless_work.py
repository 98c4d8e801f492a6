"""The backward pass of a LIFT phase ends where its group begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from study.config.load import ZeroConfig
from study.strategies import make_strategy
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from tests.helpers.workers import phase_engine, run_workers

BLOCKS = 8
PHASES = BLOCKS // 2
CASES = [(stage, checkpointing) for stage in (0, 1, 2, 3) for checkpointing in (False, True)]


def deep_model() -> LlamaForCausalLM:
    """Nearly all work in the blocks: a tiny vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        num_hidden_layers=BLOCKS,
        intermediate_size=128,
        num_attention_heads=2,
        use_cache=False,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def step_flops(stage: int, checkpointing: bool, world_size: int) -> dict[str, Any]:
    """Of each LIFT phase's step, and of full's, in units of one forward pass."""
    model = deep_model()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    layout = find_layout(model)
    lift = make_strategy("lift", {"group_size": 2}, {}).phases(layout, PHASES)
    ids = torch.randint(3, 60, (2, 16))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    units, stray = [], 0
    for phase in (*lift, *make_strategy("full", {}, {}).phases(layout, 1)):
        zero = ZeroConfig(stage=stage)
        with phase_engine(model, phase.parameters, stage, world_size, zero=zero) as engine:
            reached: list[str] = []
            below = set(layout.blocks[0]) - set(phase.parameters)
            # A tensor hook on a frozen module's output fires if the backward pass comes by.
            watches = [
                module.register_forward_hook(_report(name, reached))
                for name, module in model.named_modules()
                if below and name.startswith("model.layers.0.")
            ]
            with FlopCounterMode(display=False) as counter:
                engine.train_step([batch], make_loss("causal-lm"), 1e-4)
            with FlopCounterMode(display=False) as forward:
                engine.evaluate(batch)
            units.append(counter.get_total_flops() / forward.get_total_flops())
            for watch in watches:
                watch.remove()
            stray += len(reached)
    return {"units": units, "stray": stray}


def _report(name: str, reached: list[str]) -> Any:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple) else (output,)
        if any(isinstance(t, torch.Tensor) and t.grad_fn is not None for t in tensors):
            reached.append(name)

    return hook


def count(rank: int, world_size: int) -> dict[str, Any]:
    return {f"{s}-{c}": step_flops(s, c, world_size) for s, c in CASES}


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    return run_workers(count, 1)[0]


@pytest.mark.parametrize(("stage", "checkpointing"), CASES)
def test_a_step_costs_what_the_cost_model_says(
    counted: dict[str, Any], stage: int, checkpointing: bool
) -> None:
    """A forward pass, the active group's weights (its share of one more), and the hidden state
    down to that group (another for all the blocks that lie above its bottom); checkpointing
    computes those blocks again, but for the last product of each, a fifth of its work here."""
    *lift, full = counted[f"{stage}-{checkpointing}"]["units"]
    share = 1 / PHASES
    for group, units in enumerate(lift):
        through = (group + 1) * share
        again = through if checkpointing else 0
        needed = 1 + through + share
        assert 0.95 * (needed + 0.8 * again) <= units <= 1.05 * (needed + again)
    assert 0.95 * (3.8 if checkpointing else 3) <= full <= 1.05 * (4 if checkpointing else 3)


@pytest.mark.parametrize(("stage", "checkpointing"), CASES)
def test_frozen_blocks_below_the_group_are_not_in_the_graph(
    counted: dict[str, Any], stage: int, checkpointing: bool
) -> None:
    assert counted[f"{stage}-{checkpointing}"]["stray"] == 0
