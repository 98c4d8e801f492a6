"""Decides whether, where and for which boundaries a trial keeps hidden states."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from study.basics.errors import PrefixCacheError
from study.basics.paths import StudyPaths
from study.config.load import StudyConfig
from study.strategies.base import BlockLayout, Phase, frozen_prefix
from study.training.data.batches import collate
from study.training.data.tokenised import StudyData
from study.training.engine.checksum import checksum
from study.training.model.bypass import BlockBypass
from study.training.placement import Placement
from study.training.prefix.cache import SPLITS, Boundary, PrefixCache, rows_name
from study.training.prefix.dropout import dropout_reason
from study.training.prefix.exact import check_exact
from study.training.prefix.store import PrefixStore, cache_key
from study.training.transformers_internals import attention_of

log = logging.getLogger(__name__)

_FORMAT = 2
_GIB = 2**30
_SAMPLE_TOKENS = 16


def open_prefix_cache(
    config: StudyConfig,
    data: StudyData,
    placement: Placement,
    model: PreTrainedModel,
    layout: BlockLayout,
    phases: Sequence[Phase],
    subset: np.ndarray,
) -> tuple[PrefixCache | None, str]:
    """The trial's cache, and ``on`` or why there is none. Every rank must call it.

    Args:
        model: whole, before the first engine, with the base model's weights.
        subset: pool indices that the trial trains on.
    """
    # The highest block must run, or there would be nothing to run on.
    wanted = [min(b, len(layout.blocks) - 1) for b in frozen_prefix(layout, phases)]
    if config.prefix_cache.enabled is False:
        return None, "off: prefix_cache.enabled is false"
    if not any(wanted):
        return None, "off: no phase has blocks below it that were never trained"
    found: _Found | None = None
    try:
        found = _Found(config, data, placement, model, layout, phases, wanted, subset)
        reason = "no disk has room for it"
    except PrefixCacheError as error:
        reason = dropout_reason(model, _sample(data, placement), max(wanted)) or str(error)
    except OSError as error:
        reason = str(error)
    votes = torch.tensor([float(found is not None and b in found.chosen) for b in wanted])
    # One that a rank cannot keep is kept by none: on ZeRO-3 all must run the same blocks.
    placement.all_reduce(votes, torch.distributed.ReduceOp.MIN)
    kept = {b for b, vote in zip(wanted, votes.tolist(), strict=True) if vote}
    if found is None or not kept:
        log.info("prefix cache off: %s", reason)
        return None, f"off: {reason}"
    cache, reason = None, "another rank cannot"
    try:
        cache = PrefixCache(
            found.bypass,
            found.store,
            found.key,
            [highest(kept, b) for b in wanted],
            data,
            placement,
            in_step=config.zero.stage == 3,
        )
    except OSError as error:
        reason = str(error)
    if placement.sum(cache is None):
        return None, f"off: {reason}"
    return cache, "on"


class _Found:
    """What one rank finds possible.

    Raises:
        PrefixCacheError: it would not be exact.
        OSError: the disk cannot be used.
    """

    def __init__(
        self,
        config: StudyConfig,
        data: StudyData,
        placement: Placement,
        model: PreTrainedModel,
        layout: BlockLayout,
        phases: Sequence[Phase],
        wanted: Sequence[Boundary],
        subset: np.ndarray,
    ) -> None:
        sample = _sample(data, placement)
        candidates = sorted(set(wanted) - {0})
        training = model.training
        model.eval()
        self.bypass = BlockBypass(model, sample)
        model.train(training)
        self.key = _key(config, model, layout, data, self.bypass.dtype)
        self.store = node_store(config)
        new = set(candidates) - self.store.verified(self.key)
        if new:
            self.store.root.mkdir(parents=True, exist_ok=True)
            check_exact(model, self.bypass, sorted(new), sample, self.store.root)
            self.store.set_verified(self.key, new)
        with self.store.lock():
            missing = self._missing(data, candidates, subset)
            # Only what this trial reads: boundaries of other structures are as old as their use.
            own = {(self.key, rows_name(name, b)) for name in SPLITS for b in candidates}
            self.store.evict(sum(missing.values()), keep=own)
            room = self.store.room()
        steps = [phase.steps for phase in phases]
        self.chosen = choose_boundaries(list(zip(wanted, steps, strict=True)), missing, room)

    def _missing(
        self, data: StudyData, candidates: Sequence[Boundary], subset: np.ndarray
    ) -> dict[Boundary, int]:
        """Bytes that each boundary would still take for this trial."""
        missing = dict.fromkeys(candidates, 0)
        for name in SPLITS:
            split = getattr(data, name)
            ids = subset if name == "pool" else np.arange(len(split))
            for boundary in candidates:
                rows = self.store.open(
                    self.key, rows_name(name, boundary), split.offsets, self.bypass.token_bytes
                )
                missing[boundary] += rows.missing_bytes(ids)
                rows.close()
        return missing


def node_store(config: StudyConfig) -> PrefixStore:
    """Where this node keeps hidden states."""
    settings = config.prefix_cache
    limits = int(settings.max_gib * _GIB), int(settings.min_free_gib * _GIB)
    if settings.folder:
        return PrefixStore(Path(settings.folder), *limits)
    # Hosts that share the results folder must not share these: they are read through memory maps.
    hosts = StudyPaths(config.results_dir).prefix_cache
    return PrefixStore(hosts / socket.gethostname(), *limits, hosts)


def choose_boundaries(
    phases: Sequence[tuple[Boundary, int]], missing_bytes: Mapping[Boundary, int], room: int
) -> set[Boundary]:
    """Which boundaries to keep on a disk with `room` bytes.

    A phase reads the highest one that is kept at or below its own. Greedy: always the boundary
    that saves the most blocks over all phases among those that still fit.

    Args:
        phases: (boundary, optimizer steps) of each phase.
        missing_bytes: what each boundary would still take.
    """
    chosen: set[Boundary] = set()

    def saved(kept: Collection[Boundary]) -> int:
        return sum(steps * highest(kept, boundary) for boundary, steps in phases)

    while True:
        fitting = [
            b for b, size in missing_bytes.items() if b not in chosen and size <= max(room, 0)
        ]
        if not fitting:
            return chosen
        best = max(fitting, key=lambda b: (saved({*chosen, b}), -b))
        chosen.add(best)
        room -= missing_bytes[best]


def highest(kept: Collection[Boundary], boundary: Boundary) -> Boundary:
    """The highest of `kept` that is at most `boundary`, 0 if there is none."""
    return max((b for b in kept if b <= boundary), default=0)


def _sample(data: StudyData, placement: Placement) -> dict[str, Tensor]:
    """The longest and the shortest example of a split, cut: the second to half of the first, so
    that there is padding whatever their lengths are."""
    by_length = np.argsort(data.validation.lengths, kind="stable")
    batch = collate(data.validation, by_length[[-1, 0]], data.pad_token_id)
    batch.pop("labels")
    batch = {k: v[:, :_SAMPLE_TOKENS] for k, v in batch.items()}
    half = max(1, batch["input_ids"].shape[1] // 2)
    batch["input_ids"][1, half:] = data.pad_token_id
    batch["attention_mask"][1, half:] = 0
    return {k: v.to(placement.device) for k, v in batch.items()}


def _key(
    config: StudyConfig,
    model: PreTrainedModel,
    layout: BlockLayout,
    data: StudyData,
    dtype: torch.dtype,
) -> str:
    """Names everything that a hidden state depends on."""
    parameters: dict[str, Any] = dict(model.named_parameters())
    below = [*layout.embeddings, *(name for block in layout.blocks for name in block)]
    return cache_key(
        {
            "format": _FORMAT,
            "weights": {name: checksum(parameters[name]) for name in below},
            "model": json.loads(model.config.to_json_string(use_diff=False)),
            # Code of the model's own has its version in the module's name.
            "code": f"{type(model).__module__}.{type(model).__qualname__}",
            "checkpointing": config.model.gradient_checkpointing,
            "attention": attention_of(model.config),
            "data": data.summary.fingerprint,
            "dtype": str(dtype),
            "device": model.device.type,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
    )
