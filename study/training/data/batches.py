"""Which examples each worker sees at each step, as pure functions of seeds.

The global batch of a step is the same however many workers share it, and any step's batch can
be asked for directly, so a resumed trial starts anywhere.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from study.training.data.tokenised import IGNORED, TokenisedSplit

if TYPE_CHECKING:
    import torch

LARGEST_PADDING_SHARE = 0.05
"""Padded positions over all positions that a step sends through the model."""
AUTOMATIC_MICRO_BATCH_SIZE = 8
"""Examples of full length that a forward pass may hold when the user sets no limit."""

# Keep the streams of one seed apart: the subset must not predict its order.
_SUBSET_STREAM, _ORDER_STREAM = 1, 2


def subset_indices(pool_size: int, size: int, subset_seed: int) -> np.ndarray:
    """(size,) ascending pool indices drawn without replacement; independent over seeds.

    Raises:
        ValueError: `size` exceeds `pool_size`.
    """
    if size > pool_size:
        raise ValueError(f"a subset of {size} from a pool of {pool_size}")
    generator = np.random.default_rng([_SUBSET_STREAM, subset_seed])
    return np.sort(generator.permutation(pool_size)[:size])


@functools.lru_cache(maxsize=4)
def epoch_order(size: int, epoch: int, subset_seed: int) -> np.ndarray:
    """(size,) permutation in which a subset's examples are seen in 0-based `epoch`."""
    order = np.random.default_rng([_ORDER_STREAM, subset_seed, epoch]).permutation(size)
    order.flags.writeable = False  # shared by the cache
    return order


@dataclass(frozen=True)
class GlobalBatch:
    """One optimizer step's examples, as one worker sees them.

    Attributes:
        micro_batches: this worker's example ids, one array per forward pass. Every worker has
            as many arrays as the others; steps differ in their number.
        tokens: tokens in the whole global batch, padding excluded.
    """

    micro_batches: tuple[np.ndarray, ...]
    tokens: int


class TrainBatches:
    """The endless stream of global batches over a training subset.

    Epochs follow each other without a gap: a batch that an epoch cannot fill is filled from the
    next epoch's order, so every step has exactly `global_batch_size` examples, also when the
    subset is smaller than that.

    Args:
        split: the pool.
        indices: (size,) the subset's pool indices.
        order_seed: seeds the order in each epoch.
        global_batch_size: examples per step over all workers.
        rank, world_size: this worker, and how many share the batch.
        micro_batch_size: at most so many examples per forward pass; None: as many as have no
            more tokens, padding included, than 8 examples of full length.

    Raises:
        ValueError: the workers cannot share the global batch evenly.
    """

    def __init__(
        self,
        split: TokenisedSplit,
        indices: np.ndarray,
        order_seed: int,
        global_batch_size: int,
        rank: int,
        world_size: int,
        micro_batch_size: int | None,
    ) -> None:
        if global_batch_size % world_size:
            # A worker would now and then have no example, and nothing to run forward.
            raise ValueError(f"{global_batch_size} examples per step for {world_size} workers")
        self._indices = np.asarray(indices)
        self._order_seed = order_seed
        self._global_batch_size = global_batch_size
        self._rank, self._world_size = rank, world_size
        self._micro_batch_size = micro_batch_size
        self._sequence_length = split.sequence_length
        self._lengths = split.lengths

    def example_ids(self, step: int) -> np.ndarray:
        """(global_batch_size,) pool indices of 0-based `step`, in the order drawn."""
        size = len(self._indices)
        first = step * self._global_batch_size
        epochs, places = np.divmod(np.arange(first, first + self._global_batch_size), size)
        ids = np.empty(self._global_batch_size, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            order = epoch_order(size, epoch, self._order_seed)
            ids[here] = self._indices[order[places[here]]]
        return ids

    def global_batch(self, step: int) -> GlobalBatch:
        """The batch of 0-based optimizer step `step`."""
        ids = self.example_ids(step)
        ordered = ids[np.argsort(self._lengths[ids], kind="stable")]
        lengths = self._lengths[ordered].tolist()
        cuts = cut_by_length(
            lengths, self._world_size, self._micro_batch_size, self._sequence_length
        )
        mine = _deal(lengths, cuts, self._world_size)[self._rank]
        return GlobalBatch(
            # The gradient does not depend on the order inside a global batch.
            micro_batches=tuple(ordered[first:end] for first, end in mine),
            tokens=int(self._lengths[ids].sum()),
        )


@dataclass(frozen=True)
class EvaluationBatch:
    """Example ids of one forward pass; only the first `counted` belong to the result. A batch
    with none counted keeps this worker in step with the others."""

    ids: np.ndarray
    counted: int


def evaluation_batches(
    split: TokenisedSplit, micro_batch_size: int | None, rank: int, world_size: int
) -> list[EvaluationBatch]:
    """This worker's share of a split, cut like a training step's examples.

    Every worker gets equally many batches (ZeRO-3 gathers parameters in every forward pass), and
    each example is counted by exactly one worker.
    """
    ordered = np.argsort(split.lengths, kind="stable")
    lengths = split.lengths[ordered].tolist()
    cuts = cut_by_length(lengths, world_size, micro_batch_size, split.sequence_length)
    shares = _deal(lengths, cuts, world_size)
    batches = [EvaluationBatch(ordered[a:b], b - a) for a, b in shares[rank]]
    fillers = [EvaluationBatch(ordered[:1], 0)] * (max(map(len, shares)) - len(batches))
    return batches + fillers


def cut_by_length(
    lengths: Sequence[int], workers: int, micro_batch_size: int | None, sequence_length: int
) -> list[int]:
    """Cut examples, shortest first, into the forward passes of all workers.

    A greedy walk finds about the fewest passes that keep padding within `LARGEST_PADDING_SHARE`
    (a pass for every length would have none, so some cut always does); then their number is
    raised to a multiple of `workers`, and the largest pass made as small as that number allows,
    which takes least memory and lets the workers share evenly.

    Args:
        lengths: tokens per example, ascending, at least one.
        workers: the passes are a multiple of it, unless there are fewer examples than that.
        micro_batch_size: examples per pass, or None to limit the padded tokens per pass to
            `AUTOMATIC_MICRO_BATCH_SIZE` times `sequence_length` instead.

    Returns:
        (passes + 1,) ascending positions from 0 to the number of examples.
    """
    if micro_batch_size is None:
        rows, tokens = len(lengths), AUTOMATIC_MICRO_BATCH_SIZE * sequence_length
    else:
        rows, tokens = micro_batch_size, micro_batch_size * lengths[-1]
    sums = [0, *accumulate(lengths)]
    walk = functools.partial(_walk, lengths, sums, rows)
    allowed = int(sums[-1] * LARGEST_PADDING_SHARE / (1 - LARGEST_PADDING_SHARE))

    def pads_too_much(cuts: list[int]) -> bool:
        return sum(_pass_sizes(lengths, cuts)) - sums[-1] > allowed

    # Both searches end on a value that was tried, so nothing hangs on their order being perfect.
    padding = bisect_left(
        range(1, allowed + 1), True, key=lambda limit: pads_too_much(walk(tokens, limit))
    )
    cuts = walk(tokens, padding)
    passes = min(len(lengths), -(-(len(cuts) - 1) // workers) * workers)

    def suffices(size: int) -> bool:
        tried = walk(size, padding)
        return len(tried) - 1 <= passes and not pads_too_much(tried)

    sizes = range(lengths[-1], max(_pass_sizes(lengths, cuts)))
    size = lengths[-1] + bisect_left(sizes, True, key=suffices)
    return _split_to(lengths, walk(size, padding), passes)


def _walk(
    lengths: Sequence[int], sums: Sequence[int], rows: int, tokens: int, padding: int
) -> list[int]:
    """Fewest passes of at most so many rows, tokens and padding tokens each: all three only
    grow with each example added, so a pass is closed when the next one exceeds them."""
    cuts, first = [0], 0
    for here, width in enumerate(lengths):
        count = here + 1 - first
        size = count * width
        full = count > rows or size > tokens or size - sums[here + 1] + sums[first] > padding
        if full and count > 1:
            cuts.append(here)
            first = here
    return [*cuts, len(lengths)]


def _split_to(lengths: Sequence[int], cuts: list[int], passes: int) -> list[int]:
    """Halve the largest passes until there are `passes`; padding can only shrink."""
    while len(cuts) - 1 < passes:
        divisible = [(a, b) for a, b in pairwise(cuts) if b - a > 1]
        first, end = max(divisible, key=lambda p: (p[1] - p[0]) * lengths[p[1] - 1])
        cuts = sorted([*cuts, (first + end) // 2])
    return cuts


def _pass_sizes(lengths: Sequence[int], cuts: Sequence[int]) -> list[int]:
    """Padded tokens of each pass."""
    return [(end - first) * lengths[end - 1] for first, end in pairwise(cuts)]


def _deal(lengths: Sequence[int], cuts: Sequence[int], workers: int) -> list[list[tuple[int, int]]]:
    """Each worker's passes as (first, end) positions, largest first.

    Largest first, one to each worker in turn, the larger to whoever has least so far: all have
    equally many, nearly equal sums, and passes of like size at the same time.
    """
    passes = sorted(pairwise(cuts), key=lambda p: -(p[1] - p[0]) * lengths[p[1] - 1])
    shares: list[list[tuple[int, int]]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for start in range(0, len(passes), workers):
        by_load = sorted(range(workers), key=loads.__getitem__)
        for worker, (first, end) in zip(by_load, passes[start : start + workers], strict=False):
            shares[worker].append((first, end))
            loads[worker] += (end - first) * lengths[end - 1]
    return shares


def collate(
    split: TokenisedSplit,
    ids: Sequence[int] | np.ndarray,
    pad_token_id: int,
) -> dict[str, torch.Tensor]:
    """Pad examples on the right to the longest.

    Returns int64 tensors: ``input_ids`` and ``attention_mask`` (batch, tokens), ``labels``
    (batch, tokens) with -100 where there is no loss, or (batch,) for classification.
    """
    import torch

    width = int(split.lengths[np.asarray(ids)].max())
    input_ids = np.full((len(ids), width), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(ids), width), dtype=np.int64)
    token_labels = np.full((len(ids), width), IGNORED, dtype=np.int64)
    for row, index in enumerate(ids):
        tokens = split.input_ids(index)
        input_ids[row, : len(tokens)] = tokens
        attention_mask[row, : len(tokens)] = 1
        if not split.is_classification:
            token_labels[row, : len(tokens)] = split.labels(index)
    labels = split.targets[np.asarray(ids)].astype(np.int64)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask),
        "labels": torch.from_numpy(labels if split.is_classification else token_labels),
    }
