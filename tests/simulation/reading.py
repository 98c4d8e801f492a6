"""What an analysis says about one study, in the few numbers that are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis import Evidence, Verdict, decide
from study.analysis.summary import gather_evidence
from study.protocol.results import StudyResults


@dataclass(frozen=True)
class Reading:
    """One study as an analysis reads it; tuples are along the sizes asked about.

    Attributes:
        sizes: training examples.
        differences, low, high: nats, full - LIFT, and the 95 % interval; NaN without any.
        lift_better, lift_better_by_rho, full_better, full_better_by_rho: stated probabilities; NaN
            without any.
        answers: ``better:lift``, ``cheaper:full``, ``lean:lift``, ``not_enough_evidence``, ...
        failed: names of the gates that fail, at any of the sizes.
        crossover: what is said of the whole range: ``crossover``, ``lift``, ``full`` or
            ``unidentified``.
        crossover_range: sizes between which the curve is said to cross.
    """

    sizes: tuple[int, ...]
    differences: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    lift_better: tuple[float, ...]
    lift_better_by_rho: tuple[float, ...]
    full_better: tuple[float, ...]
    full_better_by_rho: tuple[float, ...]
    answers: tuple[str, ...]
    failed: tuple[str, ...]
    crossover: str
    crossover_range: tuple[float, float] | None = None


Analysis = Callable[[StudyResults, Sequence[int]], Reading]


def read(results: StudyResults, sizes: Sequence[int]) -> Reading:
    """The analysis under test, all of it."""
    return read_evidence(gather_evidence(results), sizes)


def read_evidence(evidence: Evidence, sizes: Sequence[int]) -> Reading:
    """The decision and the curve at every size."""
    verdicts = [decide(evidence, size, with_next_runs=False) for size in sizes]
    found = None if evidence.curve is None else evidence.curve.crossover()
    crossed = found is not None and found.low is not None and found.high is not None
    return Reading(
        sizes=tuple(sizes),
        differences=tuple(_of(v.difference.value if v.difference else None) for v in verdicts),
        low=tuple(_of(v.difference.low if v.difference else None) for v in verdicts),
        high=tuple(_of(v.difference.high if v.difference else None) for v in verdicts),
        lift_better=tuple(_chance(v, "lift", "better") for v in verdicts),
        lift_better_by_rho=tuple(_chance(v, "lift", "better_by_rho") for v in verdicts),
        full_better=tuple(_chance(v, "full", "better") for v in verdicts),
        full_better_by_rho=tuple(_chance(v, "full", "better_by_rho") for v in verdicts),
        answers=tuple(map(_answer, verdicts)),
        failed=tuple(dict.fromkeys(g.name for v in verdicts for g in v.failed_gates)),
        crossover="unidentified" if found is None else found.to_dict(evidence.pair)["kind"],
        crossover_range=(found.low, found.high) if crossed else None,  # type: ignore[arg-type, union-attr]
    )


def _of(value: float | None) -> float:
    return float("nan") if value is None else value


def _chance(verdict: Verdict, arm: str, name: str) -> float:
    return float(getattr(verdict.chances[arm], name)) if verdict.chances else float("nan")


def _answer(verdict: Verdict) -> str:
    return verdict.answer if verdict.arm is None else f"{verdict.answer}:{verdict.arm}"


def swapped(reading: Reading) -> Reading:
    """What must be said of the same study with the arms' names exchanged."""
    names = {"lift": "full", "full": "lift"}

    def other(answer: str) -> str:
        rule, _, arm = answer.partition(":")
        return f"{rule}:{names[arm]}" if arm else rule

    return Reading(
        sizes=reading.sizes,
        differences=tuple(-d for d in reading.differences),
        low=tuple(-d for d in reading.high),
        high=tuple(-d for d in reading.low),
        lift_better=reading.full_better,
        lift_better_by_rho=reading.full_better_by_rho,
        full_better=reading.lift_better,
        full_better_by_rho=reading.lift_better_by_rho,
        answers=tuple(map(other, reading.answers)),
        failed=reading.failed,
        crossover=names.get(reading.crossover, reading.crossover),
        crossover_range=reading.crossover_range,
    )


def close(left: Reading, right: Reading, tolerance: float = 1e-9) -> bool:
    """Equal in words, and in numbers to rounding."""
    words = ("sizes", "answers", "failed", "crossover")
    numbers = ("differences", "low", "high", "lift_better", "lift_better_by_rho", "full_better",
               "full_better_by_rho")  # fmt: skip
    return all(getattr(left, n) == getattr(right, n) for n in words) and all(
        np.allclose(getattr(left, n), getattr(right, n), rtol=0, atol=tolerance, equal_nan=True)
        for n in numbers
    )
