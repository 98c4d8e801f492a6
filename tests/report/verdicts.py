"""Verdicts of every kind, for the tests of their words. Not a test itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from study.analysis import Gate, Interval, NextRuns, Pair, Retention, Verdict
from study.analysis.curve.fit import Crossover
from study.analysis.verdict.records import Chances
from study.report import Setting

PAIR = Pair("full", "lift")
PASSED = Gate("Dataset sizes", "pass", "4 sizes from 500 to 4,000 (8.0x)", "at least 4", "", True)
FAILED = Gate("Replicates", "fail", "2 at 1,000", "at least 3", "Set search.replicates to 3.", True)
RUNS = NextRuns("search.replicates: 5", "2 more replicates", 80, 3600.0, 0.02, 0.012, 0.8)
FORGETS = Retention(
    Interval(0.04, 0.03, 0.05), Interval(0.01, -0.01, 0.02), 0.02, {"full": 0.975, "lift": 0.0}
)
"""Full forgets more."""


def make_verdict(answer: str = "better", arm: str | None = "lift", **changes: Any) -> Verdict:
    """At 3,000 examples LIFT is better by 0.031 nats; `changes` replace fields."""
    fields: dict[str, Any] = {
        "dataset_size": 3000,
        "basis": "device_seconds",
        "answer": answer,
        "arm": arm,
        "confidence": None if arm is None or answer == "memory" else 0.973,
        "rho": 0.01,
        "difference": Interval(0.031, 0.012, 0.05),
        "pair": PAIR,
        "chances": {"full": Chances(0.001, 0.0001, 0.01), "lift": Chances(0.999, 0.973, 0.9999)},
        "one_run": Interval(0.03, -0.01, 0.07),
        "cost": Interval(0.8, 0.75, 0.85),
        "amortised_cost": Interval(0.7, 0.6, 0.8),
        "wall_time": Interval(1.0, 0.9, 1.1),
        "memory": Interval(0.65, 0.64, 0.66),
        "memory_gib": (("full", 95.12), ("lift", 61.9)),
        "gates": (PASSED,),
    }
    return Verdict(**(fields | changes))


LEAN = make_verdict("lean", confidence=0.86, next_runs=(RUNS,))
SHORT = make_verdict(
    "not_enough_evidence", None, gates=(PASSED, FAILED), next_runs=(RUNS,),
    chances={"full": Chances(0.38, 0.2, 0.6), "lift": Chances(0.62, 0.4, 0.8)},
)  # fmt: skip
ANSWERS = {
    "better": make_verdict(),
    "cheaper": make_verdict("cheaper"),
    "memory": make_verdict("memory", memory_limit_gib=80.0),
    "lean": LEAN,
    "short": SHORT,
}
GRID = tuple(
    replace(SHORT if n < 1000 else make_verdict(), dataset_size=n) for n in range(400, 6001, 100)
)


def make_setting(**changes: Any) -> Setting:
    """A causal language model of 1.23 M parameters, tested from 500 to 4,000 examples."""
    fields: dict[str, Any] = {
        "task": "causal-lm",
        "sizes": (500, 1000, 2000, 4000),
        "model_parameters": 1_234_944,
        "task_loss": 4.63,
        "general_loss": 3.94,
        "crossover": Crossover("crossover", 800.0, 1500.0, "reference"),
        "grid": GRID,
    }
    return Setting(**(fields | changes))
