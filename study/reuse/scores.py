"""How good a chosen configuration was, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from scipy import special

from study.analysis import (
    CellSummary,
    Evidence,
    ReplicateSummary,
    StudySummary,
    Verdict,
    cold_device_seconds_of,
    device_seconds_of,
    peak_memory_of,
    score_of,
)
from study.analysis.cells.base import mean
from study.analysis.cells.estimates import pooled_sd, validation_metrics_of
from study.analysis.rules import LEVEL, REACH
from study.protocol.records import base_name
from study.protocol.results import StudyResults
from study.reuse.choose import Choice

_INTERVALS = (
    "95 %, by Student's t. Of this configuration's scores: over fresh seeds on the same training "
    "examples, the seeds' variance pooled over the replicates of its cell. arm_test_loss: over "
    "whole repetitions of the tuning with new training examples, by the arm's curve over the "
    "dataset size, other test examples included. Cut off at 0 for a loss, at 0 and 1 for a "
    "classifier's metric."
)
_LOSS, _SHARE = (0.0, math.inf), (0.0, 1.0)
"""Between what a score can lie."""


def not_learned(name: str, split: str, loss: float, base: float) -> str:
    """Of a configuration that whoever guesses would do without."""
    return (
        f"It did not learn the task: its {split} loss of {loss:.4f} is not below the "
        f"{name}'s {base:.4f}."
    )


def unlearned(summary: StudySummary, choice: Choice) -> tuple[str, ...]:
    """Whether the configuration, or else its arm on average, did not get below the base; of one
    that no trial had, the arm alone can tell."""
    base, chosen = summary.base, choice.replicate
    name = base_name(summary.config.task, base)
    if base is not None and not choice.interpolated:
        measured = (
            ("test", chosen.test_loss, base.test_loss),
            ("validation", chosen.confirm_score, base.validation_loss),
            ("validation", score_of(choice.trial), base.validation_loss),
        )
        split, loss, limit = next(found for found in measured if found[1] is not None)
        if loss is not None and loss >= limit:
            return (not_learned(name, split, loss, limit),)
    if any((cell.arm, cell.size) in summary.unlearned for cell in choice.cells):
        told = "Its arm did not learn the task at this size: the mean loss is not below the "
        return (f"{told}{name}'s.",)
    return ()


def scores(results: StudyResults, evidence: Evidence, choice: Choice) -> dict[str, Any]:
    """The section `scores`: losses in nats, as measured at its `dataset_size`; of a configuration
    that no trial had there are none but the arm's."""
    base = results.base
    found: dict[str, Any] = {"dataset_size": None}
    if not choice.interpolated:
        found = _measured(choice)
    found["arm_test_loss"], found["arm_test_loss_interval"] = _arm_test_loss(
        results, evidence, choice
    )
    return {
        **found,
        "base": base_name(results.config.task, base),
        "base_test_loss": None if base is None else rounded(base.test_loss),
        "base_retention_loss": None if base is None else rounded(base.retention_loss),
        "intervals": _INTERVALS,
    }


def _measured(choice: Choice) -> dict[str, Any]:
    cell, chosen, trial = choice.cell, choice.replicate, choice.trial
    losses = {
        "confirm_validation_loss": attrgetter("validation_losses"),
        "test_loss": attrgetter("test_losses"),
        "retention_rise": attrgetter("retention_rises"),
    }
    found: dict[str, Any] = {
        "dataset_size": cell.size,
        "search_validation_loss": rounded(score_of(trial)),
    }
    for name, of in losses.items():
        values = of(chosen)
        limits = (-math.inf, math.inf) if name == "retention_rise" else _LOSS
        found[name] = rounded(mean(values))
        found[f"{name}_interval"] = seed_interval(values, list(map(of, cell.replicates)), limits)
    return {
        **found,
        **_metrics(choice),
        "test_losses": [rounded(value) for value in chosen.test_losses],
        "device_seconds": rounded(device_seconds_of(trial), 1),
        "cold_device_seconds": rounded(cold_device_seconds_of(trial), 1),
        "peak_memory_bytes": peak_memory_of(trial),
    }


def _metrics(choice: Choice) -> dict[str, Any]:
    """A classifier's: of the search trial on validation, of the confirm runs on test."""
    found: dict[str, Any] = {}
    for name, value in validation_metrics_of(choice.trial).items():
        found[f"search_validation_{name}"] = rounded(value)
    runs = [
        [t.outcome.test_metrics for t in r.confirm if t.outcome and t.outcome.test_metrics]
        for r in choice.cell.replicates
    ]
    own = [t.outcome.test_metrics for t in choice.replicate.confirm if t.outcome]
    for name in sorted({name for metrics in own for name in metrics}):
        values = [metrics[name] for metrics in own if name in metrics]
        found[f"test_{name}"] = rounded(mean(values))
        everyone = [[m[name] for m in metrics if name in m] for metrics in runs]
        found[f"test_{name}_interval"] = seed_interval(values, everyone, _SHARE)
    return found


def seed_interval(
    values: Sequence[float],
    replicates: Sequence[Sequence[float]],
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> list[float] | None:
    """95 % interval of the mean of `values`, with the variance around their means that all
    replicates' runs show; None where no replicate has two runs.

    Args:
        replicates: of each replicate, the values of its runs, those of `values` among them.
        limits: between what a value can lie; an end beyond is cut off there.
    """
    sd, freedom = pooled_sd(replicates)
    middle = mean(values)
    if middle is None or not freedom:
        return None
    half = float(special.stdtrit(freedom, 0.5 + LEVEL / 2)) * sd / math.sqrt(len(values))
    return [round(max(limits[0], middle - half), 6), round(min(limits[1], middle + half), 6)]


def _arm_test_loss(
    results: StudyResults, evidence: Evidence, choice: Choice
) -> tuple[float | None, list[float] | None]:
    """What the arm's tuning is expected to reach at `dataset_size`; None far outside of the tested
    sizes, where the runs are too few for a curve, or where its line leaves what a loss can be."""
    arm = choice.cell.arm
    curve = evidence.gains.get(arm)
    if results.base is None or curve is None or not _is_near(evidence, choice):
        return None, None
    at, base = curve.at(choice.dataset_size), results.base.test_loss
    value, low, high = (base - float(gain[0]) for gain in (at.difference, at.high, at.low))
    if value <= 0.0:
        return None, None
    return round(value, 6), [round(max(_LOSS[0], low), 6), round(high, 6)]


def _is_near(evidence: Evidence, choice: Choice) -> bool:
    sizes = [c.size for c in evidence.cells if c.arm == choice.cell.arm and c.test is not None]
    return bool(sizes) and min(sizes) / REACH <= choice.dataset_size <= max(sizes) * REACH


def winner_facts(cell: CellSummary) -> list[dict[str, Any]]:
    """Every replicate's winner, by replicate."""
    return [_winner(r) for r in cell.replicates if r.winner is not None]


def _winner(replicate: ReplicateSummary) -> dict[str, Any]:
    winner = replicate.winner
    assert winner is not None  # only winners are listed
    return {
        "trial": winner.spec.trial_id,
        "replicate": replicate.replicate,
        "search_validation_loss": rounded(replicate.search_score),
        "confirm_validation_loss": rounded(replicate.confirm_score),
        "test_loss": rounded(replicate.test_loss),
        "hyperparameters": dict(winner.spec.hyperparameters),
    }


def verdict_facts(verdict: Verdict | None) -> dict[str, Any] | None:
    """The study's answer at the same size, None in one that compares nothing."""
    if verdict is None:
        return None
    gap = verdict.difference
    ends = None if gap is None or gap.low is None else [rounded(gap.low), rounded(gap.high)]
    return {
        "dataset_size": verdict.dataset_size,
        "basis": verdict.basis,
        "answer": verdict.answer,
        "arm": verdict.arm,
        "confidence": rounded(verdict.confidence, 4),
        "rho": verdict.rho,
        "difference": None if gap is None else rounded(gap.value),
        "difference_interval": ends,
        "failed_gates": [gate.name for gate in verdict.failed_gates],
    }


def rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else round(value, digits)
