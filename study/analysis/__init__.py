"""Numbers from a study's records: cells, curves, verdicts.

Import what is named here, and `rules` for thresholds; `table` for rows of a frame.
It draws nothing, writes nothing, and knows neither Ray nor torch.
"""

from __future__ import annotations

from study.analysis.cells.base import (
    CellSummary,
    Difference,
    Estimate,
    Gate,
    Interval,
    ReplicateSummary,
    Split,
    StateCounts,
    counted,
    score_of,
)
from study.analysis.cells.cost_records import CellCost, PrefixCacheSummary
from study.analysis.cells.costs import (
    cold_device_seconds_of,
    device_seconds_of,
    peak_memory_of,
    spent_device_seconds_of,
    steps_done,
)
from study.analysis.cells.prefix_cache import summarise_prefix_cache
from study.analysis.curve.evidence import Evidence
from study.analysis.curve.fit import Curve
from study.analysis.findings import caveats, crossover_sentence, found_sentences
from study.analysis.rules import Pair
from study.analysis.summary import StudySummary, gather_evidence, summarise, verdict_of
from study.analysis.verdict.decide import decide
from study.analysis.verdict.gates import plan_gates
from study.analysis.verdict.ranking import Ranking
from study.analysis.verdict.records import NextRuns, Retention, Verdict

__all__ = [
    "CellCost",
    "CellSummary",
    "Curve",
    "Difference",
    "Estimate",
    "Evidence",
    "Gate",
    "Interval",
    "NextRuns",
    "Pair",
    "PrefixCacheSummary",
    "Ranking",
    "ReplicateSummary",
    "Retention",
    "Split",
    "StateCounts",
    "StudySummary",
    "Verdict",
    "caveats",
    "cold_device_seconds_of",
    "counted",
    "crossover_sentence",
    "decide",
    "device_seconds_of",
    "found_sentences",
    "gather_evidence",
    "peak_memory_of",
    "plan_gates",
    "score_of",
    "spent_device_seconds_of",
    "steps_done",
    "summarise",
    "summarise_prefix_cache",
    "verdict_of",
]
