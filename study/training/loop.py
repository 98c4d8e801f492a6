"""One trial on one worker: phases, steps, evaluations, outcome.

Runs inside any torch.distributed process group; what starts the workers and carries their
reports is the caller's business, so the same loop serves Ray Train, tests and benchmarks.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from study.basics.errors import NonFiniteLossError
from study.config.load import StudyConfig
from study.protocol.records import (
    Measurement,
    OutcomeStatus,
    PrefixCacheUse,
    Stage,
    TrialOutcome,
    TrialSpec,
)
from study.protocol.steps import trial_strategy
from study.strategies.base import Phase
from study.training.checkpoint.checkpoint import (
    TrialCheckpoints,
    best_weights,
    restore_engine,
    restore_random_states,
    trial_identity,
)
from study.training.checkpoint.files import Saved
from study.training.data.batches import subset_indices
from study.training.data.tokenised import StudyData
from study.training.engine.audit import PhaseAudit
from study.training.engine.engine import PhaseEngine, StepResult
from study.training.engine.weights import held_weights, restore_weights
from study.training.evaluate import SplitLosses, classification_metrics, evaluate_split
from study.training.feed import Feed
from study.training.losses import make_loss
from study.training.model.base_model import BaseModel
from study.training.model.layout import find_layout
from study.training.model.load import new_head
from study.training.placement import Placement
from study.training.prefix.open import open_prefix_cache
from study.training.progress import Progress
from study.training.schedule import learning_rate
from study.training.setup import library_versions, open_engine, seed_everything

log = logging.getLogger(__name__)

Report = Callable[[Measurement], None]
Keep = Callable[[PreTrainedModel, TrialOutcome], None]


class Signal(IntEnum):
    """What a trial's surroundings want of it; of several, the highest counts."""

    GO_ON = 0
    PAUSE = 1
    """Write a checkpoint and end as ``interrupted``: it goes on from there another time."""
    STOP = 2
    """End as ``stopped``: nobody wants its result."""


class _Signalled(Exception):
    """Leaves the phase in progress."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal.name)
        self.signal = signal


def run_trial(
    config: StudyConfig,
    spec: TrialSpec,
    data: StudyData,
    placement: Placement,
    report: Report,
    checkpoints: Path | str | None = None,
    signal: Callable[[], Signal] | None = None,
    base_model: BaseModel | None = None,
    keep_prefix: bool = True,
    keep_model: Keep | None = None,
) -> TrialOutcome:
    """Train `spec` and score it. Every rank calls this and gets the same outcome.

    A loss that is no longer finite ends the trial as ``diverged``; other exceptions rise.

    Args:
        report: gets each evaluation; after a resume, those before it once more.
        checkpoints: folder of this trial's own, shared by the ranks, or its URL. A trial that was
            stopped at any moment goes on from the checkpoint it finds there, exactly as if it had
            not been stopped. Whoever books the outcome removes it: until then it is all there is.
            None: no checkpoints.
        signal: asked before every step; ranks may answer differently, the highest counts for all.
            None: nobody interferes.
        base_model: of this worker; None: loaded here.
        keep_prefix: use the prefix cache where it is on and exact; False: it does not pay here.
        keep_model: gets the model of a confirm trial that has finished, with the weights that it
            was scored at, on every rank and before its checkpoint goes.

    Raises:
        AuditError: a phase changed what it must not, or the reverse.
        ModelError: the model cannot be loaded or split.
    """
    return _Trial(
        config, spec, data, placement, report, checkpoints, signal, base_model, keep_prefix
    ).run(keep_model)


class _Trial:
    def __init__(
        self,
        config: StudyConfig,
        spec: TrialSpec,
        data: StudyData,
        placement: Placement,
        report: Report,
        checkpoints: Path | str | None,
        signal: Callable[[], Signal] | None = None,
        base_model: BaseModel | None = None,
        keep_prefix: bool = True,
    ) -> None:
        self.config, self.spec, self.data = config, spec, data
        self.placement, self.report, self.signal = placement, report, signal
        self.keep_prefix = keep_prefix
        self.base_model = base_model or BaseModel(config, data.summary.label_names, placement)
        self.training = config.training
        self.loss = make_loss(config.task)
        self.feed = Feed(config, data, placement)
        self.confirming = spec.stage is Stage.CONFIRM
        self.progress = Progress()
        self.checkpoints = TrialCheckpoints(
            checkpoints,
            self.training.checkpoint_share,
            placement,
            trial_identity(config, spec, data, placement),
        )

    def run(self, keep_model: Keep | None = None) -> TrialOutcome:
        seed_everything(self.spec.seed)
        self.model = self.base_model.fresh(self.spec.seed)
        self.layout = find_layout(self.model, new_head(self.model))
        strategy = trial_strategy(self.config, self.spec.arm, self.spec.hyperparameters)
        self.phases = strategy.phases(self.layout, self.spec.steps, seed=self.spec.seed)
        subset = subset_indices(len(self.data.pool), self.spec.size, self.spec.subset_seed)
        self.batches = self.feed.train_batches(subset, self.spec.order_seed)
        if self.keep_prefix:
            # Before anything is restored: hidden states are those of the base model's weights.
            self.feed.cache, self.cache_status = open_prefix_cache(
                self.config, self.data, self.placement, self.model, self.layout, self.phases, subset
            )
        else:
            self.cache_status = "off: computing costs less here than reading"
        self.best_weights: dict[str, Tensor] = {}
        self.final_scores: dict = {}
        try:
            status, reason = self._train_to_the_end()
            use = self.feed.cache.use() if self.feed.cache else PrefixCacheUse(self.cache_status)
        finally:
            if self.feed.cache is not None:
                self.feed.cache.close()
        outcome = TrialOutcome(
            status=status,
            reason=reason,
            prefix_cache=use,
            **self.progress.totals(self.placement.world_size),
            **self.final_scores,
            versions=library_versions(),
        )
        if keep_model is not None and status == OutcomeStatus.FINISHED:
            keep_model(self.model, outcome)
            self.checkpoints.remove()
        if status == OutcomeStatus.STOPPED:
            self.checkpoints.remove()
        return outcome

    def _train_to_the_end(self) -> tuple[OutcomeStatus, str]:
        """How the trial ended, and why if it did not finish."""
        try:
            stopped = self._train(self._resume())
        except NonFiniteLossError as error:
            return OutcomeStatus.DIVERGED, str(error)
        except _Signalled as error:
            if error.signal is Signal.PAUSE:
                return OutcomeStatus.INTERRUPTED, f"after step {self.progress.step}"
            return OutcomeStatus.STOPPED, f"after step {self.progress.step}"
        if stopped:
            return OutcomeStatus.STOPPED_EARLY, "patience: validation loss stopped improving"
        return OutcomeStatus.FINISHED, ""

    def _resume(self) -> Saved | None:
        """Take up what a checkpoint says was measured; None to begin at the beginning."""
        saved = self.checkpoints.load()
        if saved is not None:
            self.progress = Progress.from_dict(saved.document["progress"])
            log.info("going on after step %d from a checkpoint", self.progress.step)
            # The last one may never have been received; the store replaces the others.
            for measurement in self.progress.measurements:
                self.report(measurement)
        return saved

    def _train(self, saved: Saved | None) -> bool:
        """Train the phases that are not over yet; True if patience ended the trial early."""
        over = len(self.progress.phases)
        start = sum(phase.steps for phase in self.phases[:over])
        for phase in self.phases[over:]:
            end = start + phase.steps
            log.info("phase %d: %s, steps %d to %d", over, phase.name, start + 1, end)
            if self._train_phase(phase, start, end, saved):
                return True
            over, start, saved = over + 1, end, None
        return False

    def _train_phase(self, phase: Phase, start: int, end: int, saved: Saved | None) -> bool:
        """Train the steps from `start` to `end`, or what `saved` leaves of them; True if patience
        ended the trial in this phase."""
        self.placement.reset_peak()
        before = time.perf_counter()
        with open_engine(
            self.config, self.placement, self.model, phase, self.spec.hyperparameters
        ) as engine:
            if saved is not None:
                self._restore(engine, saved)
                start = self.progress.step
            with PhaseAudit(engine, saved.document["audit"] if saved else None) as audit:
                if saved is None:
                    count = self.layout.count(phase.parameters)
                    self.progress.begin_phase(phase.name, count, time.perf_counter() - before)
                self.progress.deepspeed_config = self.progress.deepspeed_config or engine.config
                if self.feed.cache is not None:
                    self.feed.cache.enter_phase(len(self.progress.phases), engine)
                stopped = self._train_steps(engine, audit, start, end)
                audit.check()
                if self.feed.cache is not None:
                    self.feed.cache.leave()
            if self.confirming and end == self.spec.steps:
                self.final_scores = self._final_scores(engine)
        self.progress.end_phase(self.placement)
        return stopped

    def _restore(self, engine: PhaseEngine, saved: Saved) -> None:
        if self.confirming:
            self.best_weights = best_weights(engine, saved)
        restore_engine(engine, saved)
        restore_random_states(saved, self.placement.device)
        if self.feed.cache is not None:
            self.feed.cache.restore(saved.tensors)
        saved.tensors.clear()  # else a second copy would stay for the whole phase

    def _train_steps(self, engine: PhaseEngine, audit: PhaseAudit, start: int, end: int) -> bool:
        for step in range(start, end):
            # Asked before a step, not after an evaluation: a resumed trial asks it too.
            if self._patience_is_used_up():
                break
            self._obey_signal(engine, audit)
            audit.observe(self._step(engine, step))
            if step + 1 in self.spec.evaluation_steps:
                self._evaluate(engine, audit, step + 1)
        return self._patience_is_used_up()

    def _obey_signal(self, engine: PhaseEngine, audit: PhaseAudit) -> None:
        if self.signal is None:
            return
        signal = Signal(int(self.placement.max(self.signal())))
        if signal is Signal.PAUSE:
            self._write_checkpoint(engine, audit, at_any_cost=True)
        if signal is not Signal.GO_ON:
            raise _Signalled(signal)

    def _write_checkpoint(
        self, engine: PhaseEngine, audit: PhaseAudit, at_any_cost: bool = False
    ) -> None:
        begun = self.phases[: len(self.progress.phases) + 1]
        trained = {n for phase in begun for n in phase.parameters}
        cache = self.feed.cache.state() if self.feed.cache is not None else {}
        self.checkpoints.save(
            engine, audit, self.progress, trained, self.best_weights, cache, at_any_cost
        )

    def _patience_is_used_up(self) -> bool:
        patience = self.training.patience
        return (
            not self.confirming
            and patience is not None
            and self.progress.step < self.spec.steps
            and self.progress.evaluations_without_gain() >= patience
        )

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
        micro_batches = [self.feed.collate("pool", ids) for ids in batch.micro_batches]
        result = engine.train_step(micro_batches, self.loss, rate)
        seconds = time.perf_counter() - before
        # Loss and norm are global: all ranks leave here together.
        if not result.finite:
            raise NonFiniteLossError(
                f"Loss {result.loss:.4g}, gradient norm {result.grad_norm:.4g} at step {step + 1}, "
                f"learning rate {rate:.3g}: the trial diverged. Lower the upper bound of "
                "learning_rate or of max_grad_norm."
            )
        memory = self.placement.memory_bytes()
        highest = rate * max(engine.factors.values())
        self.progress.add_step(result, batch.tokens, seconds, highest, memory, engine.watch)
        return result

    def _evaluate(self, engine: PhaseEngine, audit: PhaseAudit, step: int) -> None:
        """Measure, keep the best weights, write a checkpoint, report."""
        losses = self._losses(engine, "validation")
        if not math.isfinite(losses.mean):
            raise NonFiniteLossError(
                f"Validation loss {losses.mean} at step {step}, learning rate "
                f"{self.progress.learning_rate:.3g}: the trial diverged."
            )
        measurement = self.progress.measure(
            step,
            losses.mean,
            classification_metrics(self.data.validation, losses),
            epoch=step * self.training.global_batch_size / self.spec.size,
            placement=self.placement,
        )
        if self.confirming and self.progress.improved:
            self.best_weights = held_weights(self.model)
        self._write_checkpoint(engine, audit)
        # Last: whoever is told of an evaluation may kill the trial.
        self.report(measurement)

    def _final_scores(self, engine: PhaseEngine) -> dict:
        """Test and retention loss at the best evaluation's weights, measured here only."""
        # Parameters that ZeRO-3 keeps gathered would go on serving what they were.
        engine.engine.empty_partition_cache()
        restore_weights(self.model, self.best_weights)
        test = self._losses(engine, "test")
        retention = self._losses(engine, "retention") if self.data.retention else None
        return {
            "test_loss": test.mean,
            "test_losses": test.per_example,
            "test_metrics": classification_metrics(self.data.test, test),
            "retention_loss": retention.mean if retention else None,
        }

    def _losses(self, engine: PhaseEngine, split: str) -> SplitLosses:
        return evaluate_split(engine.evaluate, split, self.feed, self.placement)
