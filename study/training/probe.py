"""Times what a step, an evaluation and a phase change cost in each arm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from study.config.load import StudyConfig
from study.protocol.records import ArmCosts, StepCosts
from study.protocol.steps import trial_strategy
from study.strategies.base import Phase
from study.training.data.tokenised import StudyData
from study.training.engine.audit import PhaseAudit
from study.training.engine.engine import PhaseEngine, batch_to
from study.training.feed import Feed
from study.training.losses import make_loss
from study.training.model.layout import find_layout
from study.training.model.load import new_head
from study.training.placement import Placement
from study.training.prefix.cache import PrefixCache
from study.training.prefix.open import open_prefix_cache
from study.training.setup import open_engine

_WARMUP_STEPS = 2
_TIMED_STEPS = 5
_TIMED_EVALUATION_BATCHES = 4
_STEPS = 1000
"""Of the imagined trial whose phases are timed; only their parameters matter."""
# Leaves every weight as it is, so that hidden states stay the base model's; the optimizer does
# the same work.
_LEARNING_RATE = 0.0


@dataclass(frozen=True)
class _PhaseCosts:
    """Of one phase, in seconds. `cached` is None where nothing can be read; the fills, each as if
    all blocks were left out, are None where nothing had to be computed first."""

    switch: float
    step: float
    evaluation: float
    cached: float | None = None
    fill: float | None = None
    evaluation_fill: float | None = None


def measure_step_costs(
    config: StudyConfig, data: StudyData, placement: Placement, model: PreTrainedModel
) -> StepCosts:
    """Time the study's arms on its own batches; every rank must call it, all get the same.

    Each is timed in the structure of its section, see `Strategy.as_probed`, first with the frozen
    prefix computed and then, where the prefix cache can be used, with it kept and read.
    """
    return _Probe(config, data, placement, model).costs()


class _Probe:
    def __init__(
        self, config: StudyConfig, data: StudyData, placement: Placement, model: PreTrainedModel
    ) -> None:
        self.config, self.data, self.placement, self.model = config, data, placement, model
        self.loss = make_loss(config.task)
        self.layout = find_layout(model, new_head(model))
        count = min(len(data.pool), config.training.global_batch_size * _TIMED_STEPS)
        self.indices = np.arange(count)
        self.feed = Feed(config, data, placement)
        self.batches = self.feed.train_batches(self.indices, config.seed)

    def costs(self) -> StepCosts:
        # Before any engine: stage 3 leaves a model partitioned, and a cache wants it whole.
        opened = {arm: self._open(arm) for arm in self.config.arms.names}
        timed = {arm: self._arm(*opened[arm]) for arm in reversed(opened)}
        switch = self._mean(phase.switch for phase in max(timed.values(), key=len))
        return StepCosts({arm: self._costs(timed[arm], switch) for arm in opened})

    def _costs(self, phases: Sequence[_PhaseCosts], switch: float) -> ArmCosts:
        cached = None
        if any(phase.cached is not None for phase in phases):
            cached = self._mean(p.step if p.cached is None else p.cached for p in phases)
        return ArmCosts(
            step=self._mean(phase.step for phase in phases),
            step_cached=cached,
            evaluation=self._mean(phase.evaluation for phase in phases),
            phase_switch=switch,
            fill=self._mean_of_known(phase.fill for phase in phases),
            evaluation_fill=self._mean_of_known(phase.evaluation_fill for phase in phases),
        )

    def _mean(self, seconds: Iterable[float]) -> float:
        """Over phases; the slowest rank sets the pace."""
        return self.placement.max(statistics.fmean(seconds))

    def _mean_of_known(self, seconds: Iterable[float | None]) -> float | None:
        known = [value for value in seconds if value is not None]
        return self._mean(known) if known else None

    def _open(self, arm: str) -> tuple[tuple[Phase, ...], PrefixCache | None]:
        """An arm's phases, and the cache that serves them."""
        phases = trial_strategy(self.config, arm, {}).as_probed().phases(self.layout, _STEPS)
        cache, _ = open_prefix_cache(
            self.config, self.data, self.placement, self.model, self.layout, phases, self.indices
        )
        return phases, cache

    def _arm(self, phases: Sequence[Phase], cache: PrefixCache | None) -> list[_PhaseCosts]:
        try:
            return [self._phase(phase, number, cache) for number, phase in enumerate(phases)]
        finally:
            self.feed.cache = None
            if cache is not None:
                cache.close()

    def _phase(self, phase: Phase, number: int, cache: PrefixCache | None) -> _PhaseCosts:
        before = self._now()
        hyperparameters = {"learning_rate": _LEARNING_RATE, "max_grad_norm": 1.0}
        with open_engine(self.config, self.placement, self.model, phase, hyperparameters) as engine:
            with PhaseAudit(engine):  # its checksums are a part of each phase
                pass
            switch = self._now() - before
            self.feed.cache = None
            step, evaluation = self._step_seconds(engine), self._evaluation_seconds(engine)
            costs = _PhaseCosts(switch, step, evaluation)
            if cache is not None and cache.enter_phase(number, engine):
                self.feed.cache = cache
                costs = self._with_cache(costs, cache, engine)
                cache.leave()
        return costs

    def _with_cache(
        self, costs: _PhaseCosts, cache: PrefixCache, engine: PhaseEngine
    ) -> _PhaseCosts:
        """The same phase while `cache` serves it; its rows are kept on the way."""
        left_out = cache.boundary / len(self.layout.blocks)
        fills = [self._filling(cache, partial(self._batch_seconds, i)) for i in range(_TIMED_STEPS)]
        reading = statistics.median(map(self._batch_seconds, range(_TIMED_STEPS)))
        step = self._step_seconds(engine)
        first = self._filling(cache, partial(self._evaluation_seconds, engine))
        evaluation = self._evaluation_seconds(engine)
        filling = [seconds for seconds in fills if seconds is not None]
        return replace(
            costs,
            evaluation=evaluation,
            cached=step,
            fill=max(0.0, statistics.median(filling) - reading) / left_out if filling else None,
            evaluation_fill=None if first is None else max(0.0, first - evaluation) / left_out,
        )

    def _filling(self, cache: PrefixCache, timed: Callable[[], float]) -> float | None:
        """The seconds of work that finds hardly any hidden state kept, on any rank; None if it
        does find them: an earlier phase had to fill them, or another study."""
        hits, misses = cache.counts.hits, cache.counts.misses
        seconds = timed()
        hits, misses = cache.counts.hits - hits, cache.counts.misses - misses
        return seconds if 10 * self.placement.sum(hits) <= self.placement.sum(misses) else None

    def _batch_seconds(self, step: int) -> float:
        before = self._now()
        self._batch(step)
        return self._now() - before

    def _batch(self, step: int) -> list[dict[str, Tensor]]:
        micro_batches = self.batches.global_batch(step % _TIMED_STEPS).micro_batches
        return [self.feed.collate("pool", ids) for ids in micro_batches]

    def _step_seconds(self, engine: PhaseEngine) -> float:
        """Median seconds of a training step, its batch included."""
        timed = []
        for step in range(_WARMUP_STEPS + _TIMED_STEPS):
            before = self._now()
            engine.train_step(self._batch(step), self.loss, _LEARNING_RATE)
            timed.append(self._now() - before)
        return statistics.median(timed[_WARMUP_STEPS:])

    def _evaluation_seconds(self, engine: PhaseEngine) -> float:
        """Seconds of a pass over the validation split, from a few of its batches."""
        batches = self.feed.evaluation_batches("validation")
        # Spread over the lengths, by which they are sorted.
        some = batches[:: -(-len(batches) // _TIMED_EVALUATION_BATCHES)]
        before = self._now()
        for part in some:
            batch = self.feed.collate("validation", part.ids)
            self.loss.per_example(engine.evaluate(batch), batch_to(batch, self.placement.device))
        return (self._now() - before) * len(batches) / len(some)

    def _now(self) -> float:
        if self.placement.device.type == "cuda":
            torch.cuda.synchronize(self.placement.device)
        return time.perf_counter()
