"""How long the rest of a study takes, by what its trials have taken in this session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from study.basics.text_format import duration
from study.orchestration.preflight.forecast import all_specs
from study.orchestration.preflight.spread import MEANING, spread
from study.protocol.plan import StudyPlan
from study.protocol.records import TrialSpec


@dataclass(frozen=True)
class TimeLeft:
    """Seconds, with the ends of what 9 of 10 such studies take."""

    seconds: float
    low: float
    high: float

    def __str__(self) -> str:
        low, high = duration(self.low), duration(self.high)
        return f"about {duration(self.seconds)} left ({MEANING}: {low} to {high})"


@dataclass
class Pace:
    """What trials take.

    A trial takes as long as those of its arm and dataset size, else as long for a step as those
    of its arm, else as any. One that runs counts by the share of its steps that it has done.

    Attributes:
        took: of trials that ended, seconds.
    """

    plan: StudyPlan
    took: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._specs = {spec.trial_id: spec for spec in all_specs(self.plan)}

    def ended(self, spec: TrialSpec, seconds: float) -> None:
        self._specs[spec.trial_id] = spec  # a winner's own, whatever was expected of it
        self.took[spec.trial_id] = seconds

    def left(
        self,
        over: Iterable[str],
        running: Mapping[str, tuple[float, int]],
        at_once: int,
    ) -> TimeLeft | None:
        """None while nothing is known of any trial.

        Args:
            over: ids of the trials that have ended, in earlier sessions too.
            running: seconds since it began, and steps done, by trial id.
            at_once: trials that run at once.
        """
        seen = dict(self.took)
        for trial_id, (passed, steps) in running.items():
            if steps:
                seen[trial_id] = passed * self._specs[trial_id].steps / steps
        if not seen:
            return None
        ended, rest = set(over), 0.0
        longest, count = 0.0, 0
        for trial_id, spec in self._specs.items():
            if trial_id in ended:
                continue
            passed, _ = running.get(trial_id, (0.0, 0))
            left = max(0.0, seen.get(trial_id) or self._expected(spec, seen)) - passed
            rest, longest, count = rest + max(0.0, left), max(longest, left), count + 1
        seconds = max(rest / max(1, min(at_once, count)), longest) if count else 0.0
        factor = spread(self._ratios(), count)
        return TimeLeft(seconds, seconds / factor, seconds * factor)

    def _expected(self, spec: TrialSpec, seen: Mapping[str, float]) -> float:
        known = [(self._specs[trial_id], seconds) for trial_id, seconds in seen.items()]
        alike = [s for other, s in known if (other.arm, other.size) == (spec.arm, spec.size)]
        if alike:
            return sum(alike) / len(alike)
        of_arm = [(other, s) for other, s in known if other.arm == spec.arm] or known
        steps = sum(other.steps for other, _ in of_arm)
        return spec.steps * sum(seconds for _, seconds in of_arm) / steps

    def _ratios(self) -> list[list[float]]:
        """What trials of one arm and size took, group by group."""
        groups: dict[tuple[str, int], list[float]] = {}
        for trial_id, seconds in self.took.items():
            spec = self._specs[trial_id]
            groups.setdefault((spec.arm, spec.size), []).append(max(seconds, 1e-3))
        return list(groups.values())
