"""Padding and speed of training steps: micro-batches cut by padding against the rule before it.

The rule before: each step's examples, sorted, in as few passes as examples per pass allow, widths
rounded up to a multiple of 8.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from study.config.load import TrainingConfig, ZeroConfig
from study.training.data.batches import TrainBatches, collate
from study.training.data.tokenised import TokenisedSplit
from study.training.engine.engine import PhaseEngine
from study.training.engine.ops import prepare_deepspeed
from study.training.losses import make_loss

VOCABULARY = 2048
LONGEST = 512
MICRO_BATCH = 8
WARMUP = 1

Batches = list[dict[str, torch.Tensor]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--stage", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    return parser.parse_args()


def lengths_of(kind: str, count: int) -> np.ndarray:
    """Tokens per example: log-normal with sigma 1 (mean near 95), or all equal."""
    if kind == "equal":
        return np.full(count, 96)
    drawn = np.random.default_rng(0).lognormal(4.1, 1.0, count)
    return np.clip(drawn, 8, LONGEST).astype(np.int64)


def split_of(lengths: np.ndarray) -> TokenisedSplit:
    tokens = np.random.default_rng(1).integers(3, VOCABULARY, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenisedSplit(tokens, offsets, np.ones(len(lengths), np.int32), None, LONGEST)


def old_cut(split: TokenisedSplit, stream: TrainBatches, step: int) -> Batches:
    ids = stream.example_ids(step)
    ordered = ids[np.argsort(-split.lengths[ids], kind="stable")]
    passes = np.array_split(ordered, -(-len(ids) // MICRO_BATCH))
    return [collate(split, chunk, 0) for chunk in passes]


def new_cut(split: TokenisedSplit, stream: TrainBatches, step: int) -> Batches:
    return [collate(split, chunk, 0) for chunk in stream.global_batch(step).micro_batches]


CUTS: dict[str, Callable[[TokenisedSplit, TrainBatches, int], Batches]] = {
    "old": old_cut,
    "new": new_cut,
}


def measure(kind: str, engine: PhaseEngine, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """(seconds, positions, tokens, passes) summed over the timed steps, of each cut."""
    count = options.global_batch * (options.steps + WARMUP)
    split = split_of(lengths_of(kind, count))
    stream = TrainBatches(split, np.arange(count), 0, options.global_batch, 0, 1, None)
    loss = make_loss("causal-lm")
    sums = {name: np.zeros(4) for name in CUTS}
    for step in range(options.steps + WARMUP):
        # In turns, the first one changing, so that other load on the machine meets both alike.
        for name in list(CUTS)[:: 1 if step % 2 else -1]:
            before = time.perf_counter()
            batches = CUTS[name](split, stream, step)
            engine.train_step(batches, loss, 1e-5)
            seconds = time.perf_counter() - before
            if step >= WARMUP:
                positions = sum(b["input_ids"].numel() for b in batches)
                tokens = sum(int(b["attention_mask"].sum()) for b in batches)
                sums[name] += (seconds, positions, tokens, len(batches))
    return sums


def main() -> None:
    options = parse()
    prepare_deepspeed("cpu")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=options.hidden, num_hidden_layers=options.layers,
        intermediate_size=int(2.75 * options.hidden), num_attention_heads=options.hidden // 64,
        max_position_embeddings=LONGEST, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with PhaseEngine(
        model,
        [name for name, _ in model.named_parameters()],
        training=TrainingConfig(global_batch_size=options.global_batch),
        zero=ZeroConfig(stage=options.stage),
        hyperparameters={"max_grad_norm": 1.0},
        precision="fp32",
        device=torch.device("cpu"),
        micro_batch_size=MICRO_BATCH,
        world_size=1,
    ) as engine:
        for kind in ("skewed", "equal"):
            speeds = []
            for name, found in measure(kind, engine, options).items():
                seconds, positions, tokens, passes = found
                speeds.append(tokens / seconds)
                print(
                    f"{kind:<7} {name}  padding {1 - tokens / positions:6.1%}  "
                    f"{passes / options.steps:5.1f} passes/step  {speeds[-1]:9,.0f} tokens/s"
                )
            print(f"{kind:<7} new over old: {speeds[1] / speeds[0]:.2f} in tokens/s")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
