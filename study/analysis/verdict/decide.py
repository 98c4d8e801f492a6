"""Which of two arms, at one dataset size: the decision rule.

In order: memory forces an arm; a gate fails, so there is not enough evidence; an arm is better by
more than rho with .95 probability; it is not worse by rho at .95 and at least 10 % cheaper; it is
better with .80, a lean and no claim; else there is not enough evidence.
"""

from __future__ import annotations

import dataclasses
import math

from study.analysis.cells.base import Interval
from study.analysis.cells.tuning import search_trials
from study.analysis.curve.evidence import Evidence
from study.analysis.curve.fit import Curve
from study.analysis.rules import CHEAPER, LEANING, MAX_CONFIDENCE, SURE
from study.analysis.verdict.gates import bracket, has_learned, outcome_gates
from study.analysis.verdict.memory import memory_gate, only_arm, peaks_gib
from study.analysis.verdict.next_runs import next_runs
from study.analysis.verdict.records import Answer, Chances, Retention, Verdict


def decide(
    evidence: Evidence,
    dataset_size: int,
    memory_limit_gib: float | None = None,
    *,
    with_next_runs: bool = True,
) -> Verdict:
    """The answer for a dataset size.

    Args:
        memory_limit_gib: of one device; None: the study file's.
        with_next_runs: whether to look for the cheapest next runs where the evidence is short.

    Raises:
        ValueError: the size or the limit is not positive.
    """
    decision = evidence.config.decision
    limit = decision.memory_limit_gib if memory_limit_gib is None else memory_limit_gib
    if dataset_size <= 0 or (limit is not None and limit <= 0):
        raise ValueError(f"not positive: dataset size {dataset_size}, memory limit {limit} GiB")
    found = _described(evidence, dataset_size, limit)
    answer, arm, confidence = _ruled(evidence, found)
    verdict = dataclasses.replace(
        found,
        answer=answer,
        arm=arm,
        confidence=None if confidence is None else min(confidence, MAX_CONFIDENCE),
    )
    if with_next_runs and not verdict.is_claim:
        runs = next_runs(
            evidence.config,
            evidence.curve,
            evidence.cells,
            dataset_size,
            verdict.failed_gates,
            search_trials(evidence.config, evidence.tuning, _near(evidence, dataset_size)),
            evidence.pair,
        )
        verdict = dataclasses.replace(verdict, next_runs=runs)
    return verdict


def _described(evidence: Evidence, size: int, limit: float | None) -> Verdict:
    """All that is known about the size, undecided."""
    config, curve = evidence.config, evidence.curve
    rho = config.decision.rho
    tested = sorted({point.size for point in evidence.points})
    gates = outcome_gates(evidence, size)
    ends = next(gate for gate in gates if gate.name == "Learning rate range")
    described = Verdict(
        dataset_size=size,
        basis=config.comparison,
        answer="not_enough_evidence",
        arm=None,
        confidence=None,
        rho=rho,
        pair=evidence.pair,
        accuracy=_interval(evidence.accuracy, size),
        cost=_ratio(evidence.cold_cost, size),
        amortised_cost=_ratio(evidence.spent_cost, size),
        wall_time=_ratio(evidence.wall_time, size),
        memory=_ratio(evidence.peak_memory, size),
        memory_gib=peaks_gib(evidence.cells, _near(evidence, size), evidence.pair),
        memory_least_gib=evidence.least_gib,
        memory_ran_out=evidence.ran_out,
        memory_limit_gib=limit,
        retention=_retention(evidence, size),
        extrapolated=bool(tested) and not tested[0] <= size <= tested[-1],
        within_range=ends.status == "warn",
        gates=gates,
    )
    described = dataclasses.replace(described, gates=(*gates, *memory_gate(described)))
    if curve is None:
        return described
    at, one = curve.at(size), curve.one_run(size)
    return dataclasses.replace(
        described,
        difference=_interval(curve, size),
        chances={
            evidence.pair.reference: Chances(
                better=float(at.probability_below(0.0)[0]),
                better_by_rho=float(at.probability_below(-rho)[0]),
                not_worse=float(at.probability_below(rho)[0]),
            ),
            evidence.pair.challenger: Chances(
                better=float(at.probability_above(0.0)[0]),
                better_by_rho=float(at.probability_above(rho)[0]),
                not_worse=float(at.probability_above(-rho)[0]),
            ),
        },
        one_run=Interval(float(one.difference[0]), float(one.low[0]), float(one.high[0])),
    )


def _ruled(evidence: Evidence, found: Verdict) -> tuple[Answer, str | None, float | None]:
    only = only_arm(found)
    if only is not None and has_learned(evidence, only, found.dataset_size):
        return "memory", only, None
    if found.failed_gates or found.difference is None:
        return "not_enough_evidence", None, None
    chances = [(arm, found.chances[arm]) for arm in (found.pair.challenger, found.pair.reference)]
    rules: list[tuple[Answer, str, float, float]] = [
        *(("better", arm, of.better_by_rho, SURE) for arm, of in chances),
        *(("cheaper", arm, of.not_worse, SURE) for arm, of in chances if _is_cheaper(found, arm)),
        *(("lean", arm, of.better, LEANING) for arm, of in chances),
    ]
    for answer, arm, probability, level in rules:
        if probability >= level:
            return answer, arm, probability
    return "not_enough_evidence", None, None


def _is_cheaper(found: Verdict, arm: str) -> bool:
    """By its whole interval."""
    cost = found.cost
    if cost is None or cost.low is None or cost.high is None:
        return False
    return cost.high <= CHEAPER if arm == found.pair.challenger else cost.low >= 1 / CHEAPER


def _near(evidence: Evidence, size: int) -> tuple[int, ...]:
    """The study's sizes next to an asked one."""
    return bracket(sorted({cell.size for cell in evidence.cells}), size)


def _retention(evidence: Evidence, size: int) -> Retention | None:
    curve, rho = evidence.retention, evidence.config.decision.retention_rho
    difference = _interval(curve, size)
    if curve is None or difference is None:
        return None
    at = curve.at(size)
    return Retention(
        difference=difference,
        matched=_interval(evidence.matched_retention, size),
        rho=rho,
        forgets={
            evidence.pair.reference: float(at.probability_above(rho)[0]),
            evidence.pair.challenger: float(at.probability_below(-rho)[0]),
        },
    )


def _interval(curve: Curve | None, size: int) -> Interval | None:
    if curve is None:
        return None
    at = curve.at(size)
    return Interval(float(at.difference[0]), float(at.low[0]), float(at.high[0]))


def _ratio(curve: Curve | None, size: int) -> Interval | None:
    found = _interval(curve, size)
    if found is None or found.low is None or found.high is None:
        return None
    # Beyond any ratio that can be, the interval of a few runs may be that wide.
    return found.mapped(lambda log: math.exp(max(-20.0, min(20.0, log))))
