"""Which examples each worker sees at each step, as pure functions of seeds.

The global batch of a step is the same however many workers share it, and any step's batch can
be asked for directly, so a resumed trial starts anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from study.training.tokenised import IGNORED, TokenisedSplit

if TYPE_CHECKING:
    import torch

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
        micro_batches: this worker's example ids, one array per forward pass; every worker has
            as many arrays as the others.
        targets: tokens that carry loss in the whole global batch, over all workers
            (classification: examples). The divisor of the token-weighted loss.
        tokens: tokens in the whole global batch, padding excluded.
        epoch: passes over the subset once this batch is done.
    """

    micro_batches: tuple[np.ndarray, ...]
    targets: int
    tokens: int
    epoch: float


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
        micro_batch_size: at most so many examples per forward pass.

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
        micro_batch_size: int,
    ) -> None:
        if global_batch_size % world_size:
            # A worker would now and then have no example, and nothing to run forward.
            raise ValueError(f"{global_batch_size} examples per step for {world_size} workers")
        self._indices = np.asarray(indices)
        self._order_seed = order_seed
        self._global_batch_size = global_batch_size
        self._rank, self._world_size = rank, world_size
        self._passes = -(-global_batch_size // (world_size * micro_batch_size))
        self._lengths = split.lengths
        self._target_counts = split.target_counts

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
        size = self._global_batch_size
        return GlobalBatch(
            micro_batches=self._deal(ids),
            targets=int(self._target_counts[ids].sum()),
            tokens=int(self._lengths[ids].sum()),
            epoch=(step + 1) * size / len(self._indices),
        )

    def _deal(self, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """This rank's micro-batches. The sum of gradients does not depend on the order inside a
        global batch, so equally long examples go together: little padding, ranks in balance."""
        ordered = ids[np.argsort(-self._lengths[ids], kind="stable")]
        shares: list[list[np.ndarray]] = [[] for _ in range(self._world_size)]
        loads = [0] * self._world_size
        # Longest first to whoever has least: in turns, one rank would hold the longest always.
        for chunk in np.array_split(ordered, self._passes * self._world_size):
            free = [r for r in range(self._world_size) if len(shares[r]) < self._passes]
            rank = min(free, key=loads.__getitem__)
            shares[rank].append(chunk)
            loads[rank] += len(chunk) * int(self._lengths[chunk[0]])
        return tuple(shares[self._rank])


@dataclass(frozen=True)
class EvaluationBatch:
    """Example ids of one forward pass; only the first `counted` belong to the result. A batch
    with none counted keeps this worker in step with the others."""

    ids: np.ndarray
    counted: int


def evaluation_batches(
    split: TokenisedSplit, micro_batch_size: int, rank: int, world_size: int
) -> list[EvaluationBatch]:
    """This worker's share of a split, equally long examples together.

    Every worker gets equally many batches (ZeRO-3 gathers parameters in every forward pass), and
    each example is counted by exactly one worker.
    """
    ordered = np.argsort(-split.lengths, kind="stable")
    rows = -(-len(split) // (micro_batch_size * world_size))
    chunks = np.array_split(ordered, rows * world_size)[rank::world_size]
    return [
        EvaluationBatch(ids, len(ids)) if len(ids) else EvaluationBatch(ordered[-1:], 0)
        for ids in chunks
    ]


def collate(
    split: TokenisedSplit,
    ids: Sequence[int] | np.ndarray,
    pad_token_id: int,
    pad_to_multiple: int = 8,
) -> dict[str, torch.Tensor]:
    """Pad examples on the right to the longest, rounded up to a multiple (of tensor cores'
    liking) but never beyond the sequence length, which may be the model's last position.

    Returns int64 tensors: ``input_ids`` and ``attention_mask`` (batch, tokens), ``labels``
    (batch, tokens) with -100 where there is no loss, or (batch,) for classification.
    """
    import torch

    longest = int(split.lengths[np.asarray(ids)].max())
    width = -(-longest // pad_to_multiple) * pad_to_multiple
    width = max(longest, min(width, split.sequence_length))
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
