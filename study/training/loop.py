"""One trial on one worker: phases, steps, evaluations, outcome.

Runs inside any torch.distributed process group; what starts the workers and carries their
reports is the caller's business, so the same loop serves Ray Train, tests and benchmarks.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from study.config import StudyConfig
from study.errors import NonFiniteLossError
from study.records import Measurement, PhaseSummary, Stage, TrialOutcome, TrialSpec
from study.strategies import make_strategy
from study.strategies.base import Phase
from study.training.audit import PhaseAudit
from study.training.batches import TrainBatches, collate, subset_indices
from study.training.engine import PhaseEngine, StepResult
from study.training.evaluate import SplitLosses, classification_metrics, evaluate_split
from study.training.layout import find_layout
from study.training.losses import make_loss
from study.training.model import new_head
from study.training.placement import Placement
from study.training.schedule import learning_rate
from study.training.setup import library_versions, prepare_model, seed_everything
from study.training.tokenised import StudyData, TokenisedSplit
from study.training.weights import held_weights, restore_weights
from study.training.zero import resolve_micro_batch_size

log = logging.getLogger(__name__)

Report = Callable[[Measurement], None]


@dataclass
class _Progress:
    """What has been measured so far, and since the last evaluation."""

    started: float
    measurements: list[Measurement] = field(default_factory=list)
    phases: list[PhaseSummary] = field(default_factory=list)
    deepspeed_config: dict = field(default_factory=dict)
    tokens: int = 0
    peak_memory_bytes: int = 0
    train_seconds: float = 0.0
    since: list[StepResult] = field(default_factory=list)
    tokens_since: int = 0
    seconds_since: float = 0.0
    learning_rate: float = 0.0

    @property
    def best(self) -> Measurement | None:
        return min(self.measurements, key=lambda m: m.validation_loss, default=None)

    def evaluations_without_gain(self) -> int:
        best = self.best
        return len(self.measurements) - 1 - self.measurements.index(best) if best else 0


def run_trial(
    config: StudyConfig,
    spec: TrialSpec,
    data: StudyData,
    placement: Placement,
    report: Report,
) -> TrialOutcome:
    """Train `spec` and score it. Every rank calls this and gets the same outcome.

    A loss that is no longer finite ends the trial as ``diverged``; other exceptions rise.

    Raises:
        AuditError: a phase changed what it must not, or the reverse.
        ModelError: the model cannot be loaded or split.
    """
    return _Trial(config, spec, data, placement, report).run()


class _Trial:
    def __init__(
        self,
        config: StudyConfig,
        spec: TrialSpec,
        data: StudyData,
        placement: Placement,
        report: Report,
    ) -> None:
        self.config, self.spec, self.data = config, spec, data
        self.placement, self.report = placement, report
        self.training = config.training
        self.precision = placement.precision(config.training.precision)
        self.micro_batch_size = resolve_micro_batch_size(self.training, placement.world_size)
        self.loss = make_loss(config.task)
        self.progress = _Progress(started=time.perf_counter())

    def run(self) -> TrialOutcome:
        seed_everything(self.spec.seed)
        self.model = prepare_model(self.config, self.data, self.placement, self.spec.seed)
        self.layout = find_layout(self.model, new_head(self.model))
        options = getattr(self.config.arms, self.spec.arm).model_dump()
        strategy = make_strategy(self.spec.arm, options, self.spec.hyperparameters)
        self.phases = strategy.phases(self.layout, self.spec.steps)
        self.batches = TrainBatches(
            self.data.pool,
            subset_indices(len(self.data.pool), self.spec.size, self.spec.subset_seed),
            self.spec.order_seed,
            self.training.global_batch_size,
            self.placement.rank,
            self.placement.world_size,
            self.micro_batch_size,
        )
        self.best_weights: dict[str, Tensor] = {}
        self.final_scores: dict = {}
        try:
            stopped = self._train()
        except NonFiniteLossError as error:
            return self._outcome("diverged", str(error))
        if stopped:
            return self._outcome("stopped_early", "patience: validation loss stopped improving")
        return self._outcome("finished")

    def _train(self) -> bool:
        """Train all phases; True if patience ended the trial early."""
        step = 0
        for number, phase in enumerate(self.phases):
            end = step + phase.steps
            log.info("phase %d: %s, steps %d to %d", number, phase.name, step + 1, end)
            if self._train_phase(number, phase, step, end):
                return True
            step = end
        return False

    def _train_phase(self, number: int, phase: Phase, start: int, end: int) -> bool:
        self.placement.reset_peak()
        before = time.perf_counter()
        stopped = False
        peak = 0
        train_seconds = self.progress.train_seconds
        with PhaseEngine(
            self.model,
            phase.parameters,
            training=self.training,
            zero=self.config.zero,
            hyperparameters=self.spec.hyperparameters,
            precision=self.precision,
            device=self.placement.device,
            micro_batch_size=self.micro_batch_size,
            world_size=self.placement.world_size,
        ) as engine:
            audit = PhaseAudit(engine)
            switch_seconds = time.perf_counter() - before
            self.progress.deepspeed_config = self.progress.deepspeed_config or engine.config
            steps = 0
            for step in range(start, end):
                audit.observe(self._step(engine, step))
                steps += 1
                peak = max(peak, self.placement.memory_bytes())
                self.progress.peak_memory_bytes = max(self.progress.peak_memory_bytes, peak)
                if step + 1 in self.spec.evaluation_steps:
                    stopped = self._evaluate(engine, number, step + 1)
                    if stopped:
                        break
            audit.check()
            if self.spec.stage is Stage.CONFIRM and end == self.spec.steps:
                self.final_scores = self._final_scores(engine)
        self.progress.phases.append(
            PhaseSummary(
                name=phase.name,
                steps=steps,
                trainable_parameters=self.layout.count(phase.parameters),
                switch_seconds=switch_seconds,
                train_seconds=self.progress.train_seconds - train_seconds,
                peak_memory_bytes=int(self.placement.max(peak)),
            )
        )
        return stopped

    def _step(self, engine: PhaseEngine, step: int) -> StepResult:
        batch = self.batches.global_batch(step)
        rate = learning_rate(
            step,
            self.spec.steps,
            self.spec.hyperparameters["learning_rate"],
            self.spec.hyperparameters["warmup_ratio"],
            self.training.schedule,
            self.phases,
        )
        before = time.perf_counter()
        micro_batches = [
            collate(self.data.pool, ids, self.data.pad_token_id) for ids in batch.micro_batches
        ]
        result = engine.train_step(micro_batches, self.loss, rate)
        seconds = time.perf_counter() - before
        # Loss and norm are global: all ranks leave here together.
        if not result.finite:
            raise NonFiniteLossError(
                f"Loss {result.loss:.4g}, gradient norm {result.grad_norm:.4g} at step {step + 1}, "
                f"learning rate {rate:.3g}: the trial diverged. Lower the upper bound of "
                "learning_rate or of max_grad_norm."
            )
        progress = self.progress
        progress.train_seconds += seconds
        progress.learning_rate = rate
        progress.seconds_since += seconds
        progress.since.append(result)
        progress.tokens_since += batch.tokens
        progress.tokens += batch.tokens
        return result

    def _evaluate(self, engine: PhaseEngine, phase: int, step: int) -> bool:
        """Measure, report, keep the best weights; True if patience is used up."""
        losses = self._losses(engine, self.data.validation)
        measurement = self._measurement(losses.mean, phase, step)
        if not math.isfinite(measurement.validation_loss):
            raise NonFiniteLossError(
                f"Validation loss {measurement.validation_loss} at step {step}, learning rate "
                f"{measurement.learning_rate:.3g}: the trial diverged."
            )
        measurement.validation_metrics.update(classification_metrics(self.data.validation, losses))
        progress = self.progress
        progress.measurements.append(measurement)
        progress.since, progress.tokens_since, progress.seconds_since = [], 0, 0.0
        confirming = self.spec.stage is Stage.CONFIRM
        if confirming and progress.best is measurement:
            self.best_weights = held_weights(self.model)
        self.report(measurement)
        patience = self.training.patience
        return (
            not confirming
            and patience is not None
            and step < self.spec.steps
            and progress.evaluations_without_gain() >= patience
        )

    def _measurement(self, validation_loss: float, phase: int, step: int) -> Measurement:
        progress = self.progress
        targets = sum(r.targets for r in progress.since)
        seconds = time.perf_counter() - progress.started
        return Measurement(
            step=step,
            tokens=progress.tokens,
            epoch=step * self.training.global_batch_size / self.spec.size,
            phase=phase,
            train_loss=sum(r.loss_sum for r in progress.since) / targets,
            validation_loss=validation_loss,
            learning_rate=self.progress.learning_rate,
            grad_norm=float(np.mean([r.grad_norm for r in progress.since])),
            clipped_share=float(np.mean([r.clipped for r in progress.since])),
            tokens_per_second=progress.tokens_since / progress.seconds_since,
            seconds=seconds,
            device_seconds=seconds * self.placement.world_size,
            peak_memory_bytes=int(self.placement.max(progress.peak_memory_bytes)),
        )

    def _outcome(self, status: str, reason: str = "") -> TrialOutcome:
        progress = self.progress
        best = progress.best
        return TrialOutcome(
            status=status,
            reason=reason,
            score=best.validation_loss if best else None,
            best_step=best.step if best else None,
            phases=tuple(progress.phases),
            train_seconds=progress.train_seconds,
            device_seconds=(time.perf_counter() - progress.started) * self.placement.world_size,
            versions=library_versions(),
            deepspeed_config=progress.deepspeed_config,
            **self.final_scores,
        )

    def _final_scores(self, engine: PhaseEngine) -> dict:
        """Test and retention loss at the best evaluation's weights, measured here only."""
        # Parameters that ZeRO-3 keeps gathered would go on serving what they were.
        engine.engine.empty_partition_cache()
        restore_weights(self.model, self.best_weights)
        test = self._losses(engine, self.data.test)
        retention = self._losses(engine, self.data.retention) if self.data.retention else None
        return {
            "test_loss": test.mean,
            "test_losses": test.per_example,
            "test_metrics": classification_metrics(self.data.test, test),
            "retention_loss": retention.mean if retention else None,
        }

    def _losses(self, engine: PhaseEngine, split: TokenisedSplit) -> SplitLosses:
        return evaluate_split(
            engine.evaluate,
            split,
            pad_token_id=self.data.pad_token_id,
            micro_batch_size=self.micro_batch_size,
            placement=self.placement,
        )
