"""What the decision rule hands to reports: frozen records of what was asked and answered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from study.analysis.cells.base import Gate, Interval
from study.analysis.rules import Arm

Answer = Literal["memory", "better", "cheaper", "lean", "not_enough_evidence"]


@dataclass(frozen=True)
class NextRuns:
    """Runs that would shorten the interval.

    Attributes:
        change: the edit of the study file, e.g. ``search.replicates: 5``.
        reason: what it does, in words, e.g. ``2 more replicates at every size``.
        trials: how many more, both arms.
        device_seconds: what they are expected to cost; None where no run's cost is on record.
        half_width: nats, of the 95 % interval at the asked size now.
        expected_half_width: nats, after these runs.
        power: expected probability of a verdict afterwards, were the difference what it seems now.
    """

    change: str
    reason: str
    trials: int
    device_seconds: float | None
    half_width: float | None
    expected_half_width: float | None
    power: float | None = None


@dataclass(frozen=True)
class Retention:
    """Forgetting at a dataset size: rise of the loss on general text, full - LIFT.

    Attributes:
        difference: nats; above 0: LIFT forgets less.
        matched: the same at equal task loss: what is left of it when less learning is taken into
            account; None where the arms' task losses do not overlap.
        rho: nats, the difference in forgetting that matters (`decision.retention_rho`).
        probability_full_forgets, probability_lift_forgets: that this arm forgets more than the
            other by more than `rho`.
    """

    difference: Interval
    matched: Interval | None
    rho: float
    probability_full_forgets: float
    probability_lift_forgets: float


@dataclass(frozen=True)
class Verdict:
    """The answer for one dataset size, on the study's comparison basis.

    Attributes:
        dataset_size: training examples that were asked about.
        basis: the comparison basis, as in the study file.
        answer: the rule that decided: ``memory`` (the other arm does not fit), ``better`` (by
            more than rho), ``cheaper`` (not worse by rho, and cheaper), ``lean`` (no claim) or
            ``not_enough_evidence``.
        arm: the recommended arm, the one leant to; None for ``not_enough_evidence``.
        confidence: of the statement that `answer` makes, 0 to `MAX_CONFIDENCE`; None where none
            is made.
        rho: nats, the difference in test loss that matters.
        difference: test loss of full - LIFT in nats: above 0 favours LIFT; None without a curve.
        lift_better, lift_better_by_rho, full_better, full_better_by_rho, lift_not_worse,
            full_not_worse: probabilities that D > 0, D > rho, D < 0, D < -rho, D > -rho and
            D < rho, uncapped; None without a curve.
        one_run: the difference that one more pair of runs would show, each tuned once.
        accuracy: classification: accuracy of LIFT - full; None otherwise.
        cost: LIFT / full, device-seconds of a run with an empty prefix cache.
        amortised_cost: the same as spent inside a sweep.
        wall_time: LIFT / full, wall seconds of such a run as spent.
        memory: LIFT / full, peak bytes.
        memory_gib: each arm's peak per device, GiB; empty where it was not measured.
        memory_least_gib: what an arm holds per device at least, GiB, by formula; of full alone, and
            empty where the model's size is not known.
        memory_ran_out: arms that had not enough memory for a single example in this study.
        memory_limit_gib: what was asked; None: no limit.
        retention: None where it was not measured.
        extrapolated: the size lies outside of the tested ones.
        within_range: both arms' best learning rates lie at an end of the searched range.
        gates: those of this size; a failed one forbids a verdict.
        next_runs: the cheapest first; for ``lean`` and ``not_enough_evidence`` only.
    """

    dataset_size: int
    basis: str
    answer: Answer
    arm: Arm | None
    confidence: float | None
    rho: float
    difference: Interval | None = None
    lift_better: float | None = None
    lift_better_by_rho: float | None = None
    full_better: float | None = None
    full_better_by_rho: float | None = None
    lift_not_worse: float | None = None
    full_not_worse: float | None = None
    one_run: Interval | None = None
    accuracy: Interval | None = None
    cost: Interval | None = None
    amortised_cost: Interval | None = None
    wall_time: Interval | None = None
    memory: Interval | None = None
    memory_gib: tuple[tuple[Arm, float], ...] = ()
    memory_least_gib: tuple[tuple[Arm, float], ...] = ()
    memory_ran_out: tuple[Arm, ...] = ()
    memory_limit_gib: float | None = None
    retention: Retention | None = None
    extrapolated: bool = False
    within_range: bool = False
    gates: tuple[Gate, ...] = ()
    next_runs: tuple[NextRuns, ...] = ()

    @property
    def is_claim(self) -> bool:
        """Whether it may be a headline."""
        return self.answer in ("memory", "better", "cheaper")

    @property
    def perplexity_change(self) -> Interval | None:
        """The difference as LIFT's perplexity against full's, 0.01: LIFT's is 1 % lower. For a
        loss of D nats less it is 1 - exp(-D)."""
        if self.difference is None:
            return None
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        return Interval(
            1.0 - math.exp(-value),
            None if low is None else 1.0 - math.exp(-low),
            None if high is None else 1.0 - math.exp(-high),
        )

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if gate.status == "fail")
