"""Every trial as CSV and JSON, to take away."""

from __future__ import annotations

import json
import math
from typing import Any

from study.analysis.table import rows_of, to_csv
from study.protocol.records import TrialRecord
from study.protocol.results import StudyResults
from study.report.base import Download

_LEFT_OUT = ("test_losses", "deepspeed_config")
"""Of an outcome: as long as the test split, or the same in most trials; the store has them."""


def trial_downloads(results: StudyResults) -> tuple[Download, ...]:
    """``trials.csv`` and ``trials.json``; nothing of a study without trials."""
    if not results.trials:
        return ()
    return (
        Download("trials.csv", "text/csv", to_csv(rows_of(results)), "one row per trial"),
        Download(
            "trials.json",
            "application/json",
            _json(results),
            "with every evaluation and phase",
            packed=True,
        ),
    )


def to_json(data: Any, indent: int | None = None) -> str:
    """JSON text; numbers that are not finite, which JSON has not, become null."""
    compact = None if indent else (",", ":")
    try:
        return json.dumps(
            data, ensure_ascii=False, allow_nan=False, indent=indent, separators=compact
        )
    except ValueError:
        return json.dumps(
            _finite(data), ensure_ascii=False, allow_nan=False, indent=indent, separators=compact
        )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _json(results: StudyResults) -> str:
    trials = [_record(trial) for trial in results.trials]
    data = {"schema": 1, "study": results.config.name, "trials": trials}
    return to_json(data)


def _record(trial: TrialRecord) -> dict[str, Any]:
    # `vars`, not `dataclasses.asdict`, which copies every value of every evaluation deeply.
    made = vars(trial) | {
        "spec": vars(trial.spec),
        "measurements": [vars(m) for m in trial.measurements],
    }
    if trial.outcome is not None:
        outcome = {k: v for k, v in vars(trial.outcome).items() if k not in _LEFT_OUT}
        cache = trial.outcome.prefix_cache
        made["outcome"] = outcome | {
            "phases": [vars(p) for p in trial.outcome.phases],
            "prefix_cache": None if cache is None else vars(cache),
        }
    return made
