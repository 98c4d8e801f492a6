"""Subsets, orders and batches: what each worker sees."""

from __future__ import annotations

import numpy as np
import pytest

from study.training.data.batches import (
    TrainBatches,
    collate,
    epoch_order,
    evaluation_batches,
    subset_indices,
)
from study.training.data.tokenised import TokenisedSplit


def split_of(
    lengths: np.ndarray, num_labels: int | None = None, longest: int = 4096
) -> TokenisedSplit:
    """Examples of the given lengths; example i holds the token i + 1 and its first third is
    prompt."""
    targets = np.maximum(1, lengths // 3) if num_labels is None else np.arange(len(lengths)) % 2
    return TokenisedSplit(
        tokens=np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        targets=targets.astype(np.int32),
        num_labels=num_labels,
        sequence_length=longest,
    )


def skewed_lengths(count: int) -> np.ndarray:
    """Log-normal, as instruction data is: a median near 60 tokens and a long tail."""
    drawn = np.random.default_rng(0).lognormal(4.1, 0.9, count)
    return np.clip(drawn, 4, 1024).astype(np.int64)


def batches(
    split: TokenisedSplit,
    size: int,
    rank: int = 0,
    world: int = 1,
    global_batch_size: int = 16,
    micro_batch_size: int = 4,
) -> TrainBatches:
    indices = subset_indices(len(split), size, 7)
    return TrainBatches(split, indices, 7, global_batch_size, rank, world, micro_batch_size)


def test_subset_and_order_are_functions_of_their_arguments_alone() -> None:
    first = subset_indices(1000, 100, 5), epoch_order(100, 3, 5)
    np.random.seed(99)
    np.random.rand(10)
    epoch_order.cache_clear()
    assert np.array_equal(first[0], subset_indices(1000, 100, 5))
    assert np.array_equal(first[1], epoch_order(100, 3, 5))
    # Written down once: another numpy that draws differently must not pass unnoticed.
    assert subset_indices(1000, 5, 5).tolist() == [34, 297, 302, 784, 855]
    assert epoch_order(6, 1, 5).tolist() == [2, 4, 0, 5, 1, 3]


def test_a_subset_is_drawn_without_replacement() -> None:
    drawn = subset_indices(50, 40, 1)
    assert len(set(drawn.tolist())) == 40
    assert drawn.min() >= 0 and drawn.max() < 50
    assert subset_indices(50, 50, 1).tolist() == list(range(50))
    with pytest.raises(ValueError, match="subset of 51 from a pool of 50"):
        subset_indices(50, 51, 1)


def test_subsets_of_different_seeds_overlap_as_independent_draws_do() -> None:
    overlaps = [
        len(np.intersect1d(subset_indices(1000, 200, 2 * s), subset_indices(1000, 200, 2 * s + 1)))
        for s in range(200)
    ]
    # Hypergeometric: mean 40, standard deviation 5.06; the mean of 200 deviates by 0.36.
    assert abs(np.mean(overlaps) - 40) < 4 * 0.36
    assert 4 < np.std(overlaps) < 6.2


def test_orders_differ_between_epochs_and_seeds() -> None:
    assert not np.array_equal(epoch_order(100, 0, 1), epoch_order(100, 1, 1))
    assert not np.array_equal(epoch_order(100, 0, 1), epoch_order(100, 0, 2))
    assert sorted(epoch_order(100, 4, 1).tolist()) == list(range(100))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 4, 16])
def test_the_global_batch_is_the_same_for_any_number_of_workers(
    world: int, micro_batch_size: int
) -> None:
    split = split_of(skewed_lengths(300))
    for step in (0, 5, 11, 100):
        reference = batches(split, 100).global_batch(step)
        shares = [
            batches(split, 100, r, world, micro_batch_size=micro_batch_size).global_batch(step)
            for r in range(world)
        ]
        ids = np.concatenate([ids for share in shares for ids in share.micro_batches])
        assert sorted(ids) == sorted(np.concatenate(reference.micro_batches))
        assert len(ids) == 16
        assert len({len(share.micro_batches) for share in shares}) == 1
        assert all(1 <= len(m) <= micro_batch_size for s in shares for m in s.micro_batches)
        for share in shares:
            assert share.tokens == reference.tokens
        assert reference.tokens == split.lengths[ids].sum()


def test_every_epoch_holds_each_example_once_and_batches_run_across_epochs() -> None:
    split = split_of(np.full(50, 5))
    stream = batches(split, 10, global_batch_size=4)
    subset = subset_indices(50, 10, 7)
    seen = np.concatenate([stream.example_ids(step) for step in range(10)])
    assert len(seen) == 40
    for epoch in range(4):
        expected = subset[epoch_order(10, epoch, 7)]
        assert np.array_equal(seen[epoch * 10 : (epoch + 1) * 10], expected)


def test_a_subset_smaller_than_the_global_batch_still_fills_it() -> None:
    stream = batches(split_of(np.full(8, 5)), 3, global_batch_size=16)
    ids, counts = np.unique(stream.example_ids(2), return_counts=True)
    assert len(ids) == 3
    assert counts.sum() == 16 and counts.max() - counts.min() <= 2


def test_any_step_can_be_asked_for_first() -> None:
    split = split_of(skewed_lengths(100))
    walked = batches(split, 30)
    for step in range(20):
        last = walked.global_batch(step)
    epoch_order.cache_clear()
    resumed = batches(split, 30).global_batch(19)
    assert all(map(np.array_equal, last.micro_batches, resumed.micro_batches))


def test_workers_that_cannot_share_the_batch_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="16 examples per step for 3 workers"):
        batches(split_of(np.full(50, 5)), 20, 0, 3)


@pytest.mark.parametrize(("examples", "world"), [(37, 1), (37, 2), (37, 4), (3, 4), (1, 2)])
def test_evaluation_counts_each_example_once_with_equally_many_passes(
    examples: int, world: int
) -> None:
    split = split_of(skewed_lengths(examples))
    shares = [evaluation_batches(split, 4, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert all(1 <= len(b.ids) <= 4 for share in shares for b in share)
    counted = np.concatenate([b.ids[: b.counted] for share in shares for b in share])
    assert sorted(counted) == list(range(examples))


def test_collate_pads_on_the_right_and_masks_prompt_and_padding() -> None:
    split = split_of(np.array([3, 9, 6]))
    batch = collate(split, [0, 2], pad_token_id=77)
    assert batch["input_ids"].tolist() == [[1, 1, 1, 77, 77, 77], [3] * 6]
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 3, [1] * 6]
    assert batch["labels"].tolist() == [
        [-100, 1, 1] + [-100] * 3,
        [-100, -100, 3, 3, 3, 3],
    ]
    # What Hugging Face's shifted loss counts is what target_counts says.
    assert (batch["labels"][:, 1:] != -100).sum(dim=1).tolist() == split.target_counts[
        [0, 2]
    ].tolist()


def test_collate_gives_classification_one_label_per_example() -> None:
    split = split_of(np.array([3, 9, 6]), num_labels=2)
    batch = collate(split, np.array([1, 2]), 0)
    assert batch["labels"].tolist() == [1, 0]
    assert split.target_counts.tolist() == [1, 1, 1]
