"""A study's data as one worker's batches, with hidden states where a prefix cache serves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from study.config.load import StudyConfig
from study.training.data.batches import EvaluationBatch, TrainBatches, collate, evaluation_batches
from study.training.data.tokenised import StudyData, TokenisedSplit
from study.training.placement import Placement
from study.training.prefix.cache import PrefixCache


class Feed:
    """Batches of one worker.

    Attributes:
        cache: serves batches of the phases that it has entered; None: there is none.
    """

    def __init__(self, config: StudyConfig, data: StudyData, placement: Placement) -> None:
        self.cache: PrefixCache | None = None
        self.data = data
        self._training, self._placement = config.training, placement

    def split(self, name: str) -> TokenisedSplit:
        """The split called ``pool``, ``validation``, ``test`` or ``retention``."""
        split: TokenisedSplit | None = getattr(self.data, name)
        assert split is not None  # retention may be absent: ask the data first
        return split

    def train_batches(self, indices: np.ndarray, order_seed: int) -> TrainBatches:
        """The stream of global batches over the pool's examples `indices`."""
        return TrainBatches(
            self.data.pool,
            indices,
            order_seed,
            self._training.global_batch_size,
            self._placement.rank,
            self._placement.world_size,
            self._training.micro_batch_size_per_worker,
        )

    def evaluation_batches(self, name: str) -> list[EvaluationBatch]:
        """This worker's share of a split."""
        return evaluation_batches(
            self.split(name),
            self._training.micro_batch_size_per_worker,
            self._placement.rank,
            self._placement.world_size,
        )

    def collate(self, name: str, ids: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """These examples of a split as tensors. On ZeRO-3 all ranks must call it equally often."""
        if self.cache is not None:
            return self.cache.batch(name, ids)
        return collate(self.split(name), ids, self.data.pad_token_id)
