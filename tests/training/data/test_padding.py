"""How little batches pad, and that cutting them changes no number."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from study.config.load import ModelConfig, StudyConfig, TrainingConfig
from study.protocol.records import DataSummary
from study.strategies import make_strategy
from study.strategies.base import Phase
from study.training.data.batches import (
    LARGEST_PADDING_SHARE,
    TrainBatches,
    collate,
    cut_by_length,
    evaluation_batches,
)
from study.training.data.tokenised import StudyData, TokenisedSplit
from study.training.evaluate import SplitLosses, evaluate_split
from study.training.feed import Feed
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from study.training.model.load import load_model, new_head
from study.training.placement import Placement
from tests.helpers.models import tiny_model_folder
from tests.helpers.whole_weights import full_state
from tests.helpers.workers import difference, phase_engine, run_workers
from tests.tiers import thinned, wanted

STEPS = 50
LONGEST = 512
GLOBAL_BATCH = 16


def split_of(
    lengths: np.ndarray, num_labels: int | None = None, longest: int = LONGEST
) -> TokenisedSplit:
    """Random tokens of the byte-level tokenizer; the first third of each example is prompt."""
    tokens = np.random.default_rng(1).integers(5, 261, lengths.sum())
    targets = np.maximum(1, lengths // 3) if num_labels is None else np.arange(len(lengths)) % 2
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenisedSplit(
        tokens.astype(np.int32), offsets, targets.astype(np.int32), num_labels, longest
    )


def skewed_lengths(count: int, shortest: int = 8, longest: int = LONGEST) -> np.ndarray:
    """Log-normal, as instruction data is: a median near 60 tokens and a long tail."""
    drawn = np.random.default_rng(0).lognormal(4.1, 1.0, count)
    return np.clip(drawn, shortest, longest).astype(np.int64)


def train_batches(
    split: TokenisedSplit, global_batch: int, world: int, micro: int | None
) -> list[TrainBatches]:
    """Each worker's."""
    indices = np.arange(len(split))
    return [TrainBatches(split, indices, 7, global_batch, r, world, micro) for r in range(world)]


def step_passes(split: TokenisedSplit, streams: list[TrainBatches]) -> list[list[list[np.ndarray]]]:
    """Example ids by step, worker and pass."""
    return [[list(s.global_batch(step).micro_batches) for s in streams] for step in range(STEPS)]


def positions(split: TokenisedSplit, passes: list[np.ndarray]) -> int:
    """Padded ones included."""
    return sum(collate(split, ids, 0)["input_ids"].numel() for ids in passes)


def fewest_passes(lengths: np.ndarray, rows: int, workers: int) -> int:
    """Passes per worker of the best cut there is: exact, for each number of passes the least
    padding by dynamic programming."""
    count = len(lengths)
    first, end = np.arange(count)[:, None], np.arange(1, count + 1)[None]
    size = (lengths[None] * (end - first)).astype(float)
    size[(end <= first) | (end - first > rows)] = np.inf
    least = np.append(0.0, np.full(count, np.inf))
    passes = 0
    while lengths.sum() / least[-1] < 1 - LARGEST_PADDING_SHARE:
        least = np.append(np.inf, (least[:count, None] + size).min(axis=0))
        passes += 1
    return -(-passes // workers)


@pytest.mark.parametrize("micro", [4, None])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("global_batch", [16, 32])
def test_no_step_pads_more_than_its_share(global_batch: int, world: int, micro: int | None) -> None:
    split = split_of(skewed_lengths(500))
    streams = train_batches(split, global_batch, world, micro)
    all_positions = all_tokens = 0
    for step, workers in enumerate(step_passes(split, streams)):
        passes = [ids for worker in workers for ids in worker]
        ids = np.concatenate(passes)
        assert sorted(ids) == sorted(streams[0].example_ids(step))
        assert len({len(worker) for worker in workers}) == 1
        assert all(1 <= len(ids) <= (micro or global_batch) for ids in passes)
        assert all(positions(split, [ids]) <= 8 * LONGEST for ids in passes)
        here, tokens = positions(split, passes), split.lengths[ids].sum()
        assert here - tokens <= LARGEST_PADDING_SHARE * here
        all_positions, all_tokens = all_positions + here, all_tokens + tokens
    share = 1 - all_tokens / all_positions
    print(f"padding over {STEPS} steps: {share:.3f}")
    assert 0 < share <= LARGEST_PADDING_SHARE


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_cut_needs_hardly_more_passes_than_the_best_one(world: int) -> None:
    split = split_of(skewed_lengths(500))
    streams = train_batches(split, 32, world, 8)
    made = [len(workers[0]) for workers in step_passes(split, streams)]
    best = [
        fewest_passes(np.sort(split.lengths[streams[0].example_ids(step)]), 8, world)
        for step in range(STEPS)
    ]
    print(f"passes per worker and step: {np.mean(made):.2f}, at best {np.mean(best):.2f}")
    assert all(m >= b for m, b in zip(made, best, strict=True))
    assert np.mean(made) < 1.1 * np.mean(best)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("micro", [1, 2, 3, 6, None])
def test_equally_long_examples_take_the_fewest_passes_in_equal_shares(
    world: int, micro: int | None
) -> None:
    split = split_of(np.full(100, 60))
    passes = 24 // (world * micro) if micro else 1
    for workers in step_passes(split, train_batches(split, 24, world, micro)):
        for worker in workers:
            assert [len(ids) for ids in worker] == [24 // (world * passes)] * passes


def test_without_a_limit_on_examples_short_ones_share_a_pass_up_to_the_tokens_of_eight() -> None:
    for length, passes in ((20, 1), (128, 1), (256, 2), (512, 4)):
        split = split_of(np.full(100, length))
        (stream,) = train_batches(split, 32, 1, None)
        assert len(stream.global_batch(0).micro_batches) == passes


@pytest.mark.parametrize(("global_batch", "world"), [(16, 2), (32, 2), (32, 4)])
def test_no_worker_waits_long_for_another(global_batch: int, world: int) -> None:
    split = split_of(skewed_lengths(500))
    excess = []
    for workers in step_passes(split, train_batches(split, global_batch, world, 8)):
        loads = [positions(split, passes) for passes in workers]
        excess.append(max(loads) / np.mean(loads) - 1)
    print(f"the busiest worker's positions over the mean: {np.mean(excess):.3f}")
    assert np.mean(excess) < 0.1


@pytest.mark.parametrize("micro", [8, None])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_pads_within_the_share_and_counts_each_example_once(
    world: int, micro: int | None
) -> None:
    split = split_of(skewed_lengths(700))
    shares = [evaluation_batches(split, micro, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    batches = [batch for share in shares for batch in share]
    assert all(len(b.ids) == b.counted <= (micro or 700) for b in batches)
    assert sorted(np.concatenate([b.ids for b in batches])) == list(range(700))
    total = positions(split, [b.ids for b in batches])
    assert total - split.lengths.sum() <= LARGEST_PADDING_SHARE * total


@pytest.mark.parametrize("examples", [1, 2, 3, 5, 6])
def test_evaluation_of_few_examples_keeps_every_worker_in_step(examples: int) -> None:
    split = split_of(skewed_lengths(examples))
    shares = [evaluation_batches(split, None, rank, 4) for rank in range(4)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(b.ids) for share in shares for b in share)
    counted = np.concatenate([b.ids[: b.counted] for share in shares for b in share])
    assert sorted(counted) == list(range(examples))


def test_a_cut_is_a_function_of_its_arguments_alone() -> None:
    # Written down once: a resumed trial must make the batches it made before.
    lengths = [8, 9, 20, 21, 22, 60, 64, 200]
    assert cut_by_length(lengths, 1, 8, LONGEST) == [0, 2, 5, 7, 8]
    assert cut_by_length(lengths, 3, 2, LONGEST) == [0, 2, 4, 5, 6, 7, 8]


# --- the same numbers as one example at a time ---

CASES = [("llama", "full"), ("llama", "lift"), ("bert", "full"), ("bert", "lift")]
STAGES = (0, 1, 2, 3)
TRAINED_STEPS = 4
LEARNING_RATE = 0.5
# SGD: Adam would blow up the rounding of gradients that are zero (biases of BERT's keys).
TRAINING = TrainingConfig(global_batch_size=GLOBAL_BATCH, optimizer="sgd", momentum=0.9)


def make_model(folder: Path) -> PreTrainedModel:
    task = "causal-lm" if "llama" in folder.name else "sequence-classification"
    return load_model(ModelConfig(path=str(folder)), task, 2, torch.float32, 0)


def make_phases(model: PreTrainedModel, arm: str) -> tuple[Phase, ...]:
    layout = find_layout(model, new_head(model))
    options = {"group_size": 2} if arm == "lift" else {}
    return make_strategy(arm, options, {}).phases(layout, TRAINED_STEPS)


def one_at_a_time(
    model: PreTrainedModel, arm: str, split: TokenisedSplit, ids: list[np.ndarray]
) -> tuple[list[float], np.ndarray]:
    """Plain torch, unpadded, by SGD; loss of each step, then each example's loss at the end."""
    parameters = dict(model.named_parameters())
    name = "sequence-classification" if split.is_classification else "causal-lm"
    loss = make_loss(name)

    def example_loss(index: int) -> torch.Tensor:
        batch = collate(split, [index], 0)
        return loss.total(model(input_ids=batch["input_ids"]).logits, batch)

    losses, step = [], 0
    for phase in make_phases(model, arm):
        active = [parameters[n] for n in phase.parameters]
        optimizer = torch.optim.SGD(active, lr=LEARNING_RATE, momentum=0.9)
        for _ in range(phase.steps):
            optimizer.zero_grad()
            targets = split.target_counts[ids[step]].sum()
            total = 0.0
            for index in ids[step]:
                value = example_loss(index) / targets
                value.backward()
                total += float(value)
            torch.nn.utils.clip_grad_norm_(active, 0.5)
            optimizer.step()
            losses.append(total)
            step += 1
        model.zero_grad()
    with torch.no_grad():
        return losses, np.array([float(example_loss(i)) for i in range(len(split))])


def make_feed(split: TokenisedSplit, rank: int, world_size: int) -> Feed:
    summary = DataSummary("f", len(split), len(split), len(split), 0, 0, 0, 0, 1.0, 1.0)
    data = StudyData(split, split, split, None, summary, 0, split.num_labels)
    placement = Placement(torch.device("cpu"), rank, world_size)
    return Feed(StudyConfig.model_construct(training=TRAINING), data, placement)


def train_and_score(
    model: PreTrainedModel, arm: str, stage: int, feed: Feed, rank: int, world_size: int
) -> tuple[list[float], list[int], SplitLosses]:
    """Loss and passes of each step; each example's loss at the end."""
    stream = feed.train_batches(np.arange(len(feed.split("pool"))), order_seed=7)
    loss = make_loss("sequence-classification" if feed.data.num_labels else "causal-lm")
    losses: list[float] = []
    passes = []
    for phase in make_phases(model, arm):
        with phase_engine(
            model, phase.parameters, stage, world_size, training=TRAINING,
            micro_batch_size=8, hyperparameters={"max_grad_norm": 0.5},
        ) as engine:  # fmt: skip
            for _ in range(phase.steps):
                micro = stream.global_batch(len(losses)).micro_batches
                batches = [feed.collate("pool", ids) for ids in micro]
                losses.append(engine.train_step(batches, loss, LEARNING_RATE).loss)
                passes.append(len(batches))
            placement = Placement(torch.device("cpu"), rank, world_size)
            scores = evaluate_split(engine.evaluate, "validation", feed, placement)
    return losses, passes, scores


def check_numbers(
    folders: dict[str, Path], runs: list[tuple[str, str, int]], rank: int, world_size: int
) -> dict[tuple[str, str, int], dict[str, Any]]:
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for (architecture, arm), cases in itertools.groupby(runs, lambda run: run[:2]):
        labels = 2 if architecture == "bert" else None
        split = split_of(skewed_lengths(40, 5, 120), labels, longest=128)
        feed = make_feed(split, rank, world_size)
        stream = feed.train_batches(np.arange(len(split)), order_seed=7)
        drawn = [stream.example_ids(step) for step in range(TRAINED_STEPS)]
        expected_model = make_model(folders[architecture])
        start = {n: p.detach().clone() for n, p in expected_model.named_parameters()}
        losses, scores = one_at_a_time(expected_model, arm, split, drawn)
        expected = {n: p.detach() for n, p in expected_model.named_parameters()}
        for *_, stage in cases:
            model = make_model(folders[architecture])
            made, passes, scored = train_and_score(model, arm, stage, feed, rank, world_size)
            found[architecture, arm, stage] = {
                "loss": float(np.abs(np.subtract(made, losses)).max()),
                "weights": difference(full_state(model), expected),
                "evaluation": float(np.abs(scored.per_example - scores / scored.counts).max()),
                "moved": difference(start, expected),
                "passes": passes,
            }
    return found


@pytest.fixture(scope="module")
def numbers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> list[dict[tuple[str, str, int], dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("models")
    folders = {name: tiny_model_folder(folder, name) for name in ("llama", "bert")}
    runs = wanted(request, "architecture", "arm", "stage")
    return run_workers(functools.partial(check_numbers, folders, runs), 2)


def half(architecture: str, arm: str, stage: int) -> bool:
    """Every pair of two of the three."""
    return (CASES.index((architecture, arm)) in (0, 3)) == (stage % 2 == 0)


@pytest.mark.parametrize(
    ("architecture", "arm", "stage"), thinned([(*c, s) for c in CASES for s in STAGES], half)
)
def test_two_workers_get_the_numbers_of_one_example_at_a_time(
    numbers: list[dict[tuple[str, str, int], dict[str, Any]]],
    architecture: str,
    arm: str,
    stage: int,
) -> None:
    for worker in numbers:
        found = worker[architecture, arm, stage]
        assert len(set(found["passes"])) > 1  # or nothing varies from step to step
        assert found["moved"] > 1e-2
        assert found["loss"] < 1e-5
        assert found["weights"] < 1e-5
        assert found["evaluation"] < 1e-5
