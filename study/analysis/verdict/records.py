"""What the decision rule hands to reports: frozen records of what was asked and answered."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from study.analysis.cells.base import Gate, Interval
from study.analysis.rules import Pair

_BETTER = ("better", "better_by_rho")
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
    """Forgetting at a dataset size: rise of the loss on general text, reference - challenger.

    Attributes:
        difference: nats; above 0: the challenger forgets less.
        matched: the same at equal task loss: what is left of it when less learning is taken into
            account; None where the arms' task losses do not overlap.
        rho: nats, the difference in forgetting that matters (`decision.retention_rho`).
        forgets: of each arm, the probability that it forgets more than the other by more than
            `rho`.
    """

    difference: Interval
    matched: Interval | None
    rho: float
    forgets: dict[str, float]


@dataclass(frozen=True)
class Chances:
    """Of one arm's test loss against the other's, uncapped.

    Attributes:
        better, better_by_rho, not_worse: probabilities that it is lower, lower by more than rho,
            and not higher by rho.
    """

    better: float
    better_by_rho: float
    not_worse: float


@dataclass(frozen=True)
class Verdict:
    """The answer for one dataset size, on the study's comparison basis.

    Attributes:
        dataset_size: training examples that were asked about.
        basis: the comparison basis, as in the study file.
        pair: the arms; signs and ratios below are as it says.
        answer: the rule that decided: ``memory`` (the other arm does not fit), ``better`` (by
            more than rho), ``cheaper`` (not worse by rho, and cheaper), ``lean`` (no claim) or
            ``not_enough_evidence``.
        arm: the recommended arm, the one leant to; None for ``not_enough_evidence``.
        confidence: of the statement that `answer` makes, 0 to `MAX_CONFIDENCE`; None where none
            is made.
        rho: nats, the difference in test loss that matters.
        difference: in test loss, nats; None without a curve.
        chances: of each arm; empty without a curve.
        one_run: the difference that one more pair of runs would show, each tuned once.
        accuracy: classification: that of challenger - reference; None otherwise.
        cost: ratio of the device-seconds of a run with an empty prefix cache.
        amortised_cost: the same as spent inside a sweep.
        wall_time: ratio of the wall seconds of such a run as spent.
        memory: ratio of peak bytes.
        memory_gib: each arm's peak per device, GiB; empty where it was not measured.
        memory_least_gib: what an arm holds per device at least, GiB, by formula; of one that
            trains everything alone, and empty where the model's size is not known.
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
    arm: str | None
    confidence: float | None
    rho: float
    pair: Pair
    difference: Interval | None = None
    chances: dict[str, Chances] = field(default_factory=dict)
    one_run: Interval | None = None
    accuracy: Interval | None = None
    cost: Interval | None = None
    amortised_cost: Interval | None = None
    wall_time: Interval | None = None
    memory: Interval | None = None
    memory_gib: tuple[tuple[str, float], ...] = ()
    memory_least_gib: tuple[tuple[str, float], ...] = ()
    memory_ran_out: tuple[str, ...] = ()
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
        """The difference as the challenger's perplexity against the reference's, 0.01: it is 1 %
        lower. For a loss of D nats less it is 1 - exp(-D)."""
        if self.difference is None:
            return None
        return self.difference.mapped(lambda nats: 1.0 - math.exp(-nats))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is an arm's is named by it, e.g. ``lift_better``."""
        told: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            if name == "chances":
                told |= self._named_chances()
            elif name != "pair":
                told[name] = value
        if told["retention"] is not None:
            forgets = told["retention"].pop("forgets")
            told["retention"] |= {f"probability_{arm}_forgets": p for arm, p in forgets.items()}
        return told

    def _named_chances(self) -> dict[str, float | None]:
        reference, challenger = self.pair
        names = [(arm, chance) for arm in (challenger, reference) for chance in _BETTER]
        names += [(arm, "not_worse") for arm in (challenger, reference)]
        return {
            f"{arm}_{chance}": getattr(self.chances[arm], chance) if self.chances else None
            for arm, chance in names
        }

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if gate.status == "fail")
