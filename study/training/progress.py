"""What a trial has measured and spent so far, over all the processes it ran in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from study.protocol.records import Measurement, PhaseSummary
from study.training.engine.engine import StepResult
from study.training.engine.memory import StateWatch
from study.training.placement import Placement

_LARGEST_OVER_RANKS = ("peak_memory_bytes", "state_bytes", "peak_state_bytes")


@dataclass
class _Window:
    """The steps since the last evaluation."""

    results: list[StepResult] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `asdict` gave."""
        return cls(**{**data, "results": [StepResult(**r) for r in data["results"]]})


@dataclass
class Progress:
    """Measurements and costs of one trial on one rank; starts counting wall time when made.

    Attributes:
        measurements: one per evaluation.
        phases: what the phases that are over trained and cost.
        phase: the same of the phase in progress, so far; None between phases.
        deepspeed_config: of the first phase.
        tokens: seen in training, padding excluded, over all ranks.
        learning_rate: of the last step.
        seconds_before: wall seconds the trial spent in processes before this one.
        checkpoint_seconds: of all wall seconds, those that checkpoints took.
    """

    measurements: list[Measurement] = field(default_factory=list)
    phases: list[PhaseSummary] = field(default_factory=list)
    phase: PhaseSummary | None = None
    deepspeed_config: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    learning_rate: float = 0.0
    seconds_before: float = 0.0
    checkpoint_seconds: float = 0.0
    _since: _Window = field(default_factory=_Window)
    _started: float = field(default_factory=time.perf_counter)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return sum(p.steps for p in self._all_phases())

    @property
    def wall_seconds(self) -> float:
        """Spent on the trial; none for the time between two processes."""
        return self.seconds_before + time.perf_counter() - self._started

    @property
    def seconds(self) -> float:
        """What the trial costs: wall seconds without checkpoints, which only insure it."""
        return self.wall_seconds - self.checkpoint_seconds

    @property
    def train_seconds(self) -> float:
        """Wall seconds of forward, backward and step."""
        return sum(p.train_seconds for p in self._all_phases())

    @property
    def peak_memory_bytes(self) -> int:
        """Largest on this rank."""
        return max((p.peak_memory_bytes for p in self._all_phases()), default=0)

    @property
    def best(self) -> Measurement | None:
        """The evaluation with the lowest validation loss."""
        return min(self.measurements, key=lambda m: m.validation_loss, default=None)

    @property
    def improved(self) -> bool:
        """Whether the last evaluation is the best one."""
        return bool(self.measurements) and self.best is self.measurements[-1]

    @property
    def at_evaluation(self) -> bool:
        """Whether no step was made since the last evaluation."""
        return bool(self.measurements) and not self._since.results

    def evaluations_without_gain(self) -> int:
        """Evaluations since the best one."""
        best = self.best
        return len(self.measurements) - 1 - self.measurements.index(best) if best else 0

    def begin_phase(self, name: str, trainable_parameters: int, switch_seconds: float) -> None:
        """Start the books of a phase."""
        self.phase = PhaseSummary(name, 0, trainable_parameters, switch_seconds, 0.0, 0)

    def add_step(
        self,
        result: StepResult,
        tokens: int,
        seconds: float,
        rate: float,
        memory_bytes: int,
        watch: StateWatch,
    ) -> None:
        """Book one optimizer step of the phase in progress."""
        phase = self._running
        self.phase = replace(
            phase,
            steps=phase.steps + 1,
            train_seconds=phase.train_seconds + seconds,
            peak_memory_bytes=max(phase.peak_memory_bytes, memory_bytes),
            state_bytes=max(phase.state_bytes, watch.steady),
            peak_state_bytes=max(phase.peak_state_bytes, watch.peak),
        )
        self.learning_rate = rate
        self.tokens += tokens
        self._since.results.append(result)
        self._since.tokens += tokens
        self._since.seconds += seconds

    def end_phase(self, placement: Placement) -> None:
        """Close the books of the phase in progress. Every rank must call it."""
        phase = self._running
        largest: dict[str, Any] = {
            name: int(placement.max(getattr(phase, name))) for name in _LARGEST_OVER_RANKS
        }
        self.phases.append(replace(phase, **largest))
        self.phase = None

    def measure(
        self,
        step: int,
        validation_loss: float,
        validation_metrics: Mapping[str, float],
        *,
        epoch: float,
        placement: Placement,
    ) -> Measurement:
        """Book an evaluation and begin a new stretch of training. Every rank must call it.

        Args:
            step: optimizer steps done.
            epoch: passes over the subset so far.
        """
        since, self._since = self._since, _Window()
        seconds = self.seconds
        measurement = Measurement(
            step=step,
            tokens=self.tokens,
            epoch=epoch,
            phase=len(self.phases),
            train_loss=sum(r.loss_sum for r in since.results)
            / sum(r.targets for r in since.results),
            validation_loss=validation_loss,
            learning_rate=self.learning_rate,
            grad_norm=float(np.mean([r.grad_norm for r in since.results])),
            clipped_share=float(np.mean([r.clipped for r in since.results])),
            tokens_per_second=since.tokens / since.seconds,
            seconds=seconds,
            device_seconds=seconds * placement.world_size,
            peak_memory_bytes=int(placement.max(self.peak_memory_bytes)),
            validation_metrics=dict(validation_metrics),
        )
        self.measurements.append(measurement)
        return measurement

    def totals(self, world_size: int) -> dict[str, Any]:
        """Fields of the `TrialOutcome` that follow from what was booked."""
        best = self.best
        return {
            "score": best.validation_loss if best else None,
            "best_step": best.step if best else None,
            "phases": tuple(self.phases),
            "train_seconds": self.train_seconds,
            "device_seconds": self.seconds * world_size,
            "checkpoint_device_seconds": self.checkpoint_seconds * world_size,
            "deepspeed_config": self.deepspeed_config,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, of a phase in progress, between two steps."""
        return {
            "seconds": self.wall_seconds,
            "checkpoint_seconds": self.checkpoint_seconds,
            "measurements": [m.to_dict() for m in self.measurements],
            "phases": [p.to_dict() for p in self.phases],
            "phase": self._running.to_dict(),
            "deepspeed_config": self.deepspeed_config,
            "tokens": self.tokens,
            "learning_rate": self.learning_rate,
            "since": asdict(self._since),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Go on from what `to_dict` gave, in another process."""
        return cls(
            measurements=[Measurement.from_dict(m) for m in data["measurements"]],
            phases=[PhaseSummary.from_dict(p) for p in data["phases"]],
            phase=PhaseSummary.from_dict(data["phase"]),
            deepspeed_config=data["deepspeed_config"],
            tokens=data["tokens"],
            learning_rate=data["learning_rate"],
            _since=_Window.from_dict(data["since"]),
            seconds_before=data["seconds"],
            checkpoint_seconds=data["checkpoint_seconds"],
        )

    @property
    def _running(self) -> PhaseSummary:
        if self.phase is None:
            raise RuntimeError("no phase is in progress")
        return self.phase

    def _all_phases(self) -> list[PhaseSummary]:
        return self.phases + ([self.phase] if self.phase else [])
