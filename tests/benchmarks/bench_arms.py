"""Seconds per step of full fine-tuning and of each LIFT phase, in one process."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from study.config import TrainingConfig, ZeroConfig
from study.plan import predicted_cost_ratio
from study.strategies import make_strategy
from study.strategies.base import Phase
from study.training.engine import PhaseEngine
from study.training.layout import find_layout
from study.training.losses import make_loss
from study.training.ops import prepare_ops

VOCABULARY = 2048
WARMUP, TIMED = 2, 7


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--stage", type=int, default=2)
    return parser.parse_args()


def batches(options: argparse.Namespace, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        shape = (options.batch, options.tokens)
        ids = torch.randint(3, VOCABULARY, shape, generator=generator).to(device)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def seconds_per_step(
    model: LlamaForCausalLM, phase: Phase, options: argparse.Namespace, device: torch.device
) -> tuple[float, float]:
    """Median seconds of a step, and peak device memory in GiB (0 on CPU)."""
    loss, stream, timed = make_loss("causal-lm"), batches(options, device), []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with PhaseEngine(
        model,
        phase.parameters,
        training=TrainingConfig(global_batch_size=options.batch),
        zero=ZeroConfig(stage=options.stage),
        hyperparameters={"max_grad_norm": 1.0},
        precision="bf16" if device.type == "cuda" else "fp32",
        device=device,
        micro_batch_size=options.batch,
        world_size=1,
    ) as engine:
        for _ in range(WARMUP + TIMED):
            before = time.perf_counter()
            engine.train_step([next(stream)], loss, 1e-5)
            if device.type == "cuda":
                torch.cuda.synchronize()
            timed.append(time.perf_counter() - before)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return statistics.median(timed[WARMUP:]), peak


def main() -> None:
    options = parse()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda:0" if cuda else "cpu")
    prepare_ops(device.type)
    dist.init_process_group(
        "nccl" if cuda else "gloo", store=dist.HashStore(), rank=0, world_size=1
    )
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=options.hidden, num_hidden_layers=options.layers,
        intermediate_size=int(2.75 * options.hidden), num_attention_heads=options.hidden // 64,
        max_position_embeddings=options.tokens, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device, torch.bfloat16 if cuda else torch.float32)
    layout = find_layout(model)
    size = -(-options.layers // options.groups)
    phases = {
        "full": make_strategy("full", {}, {}).phases(layout, 100),
        "lift": make_strategy("lift", {"group_size": size}, {}).phases(layout, 100),
    }
    means = {}
    for arm, arm_phases in phases.items():
        timed = []
        for phase in arm_phases:
            seconds, peak = seconds_per_step(model, phase, options, device)
            timed.append(seconds)
            memory = f"  peak {peak:.2f} GiB" if cuda else ""
            print(f"{arm:<5} {phase.name:<30} {seconds * 1e3:9.1f} ms/step{memory}")
        means[arm] = statistics.fmean(timed)
    ratio = means["full"] / means["lift"]
    print(f"full over LIFT: {ratio:.2f}; cost model: {predicted_cost_ratio(options.groups):.2f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
