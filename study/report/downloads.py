"""Every trial as CSV and JSON, to take away."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from study.analysis import cold_device_seconds_of, peak_memory_of, score_of, steps_done
from study.records import TrialRecord
from study.report.base import Download
from study.results import StudyResults, device_seconds_of

_SPEC = ("trial_id", "arm", "size", "replicate", "stage", "index")
_SEEDS = ("seed", "subset_seed", "order_seed")
_LEFT_OUT = ("test_losses", "deepspeed_config")
"""Of an outcome: as long as the test split, or the same in most trials; the store has them."""


def trial_downloads(results: StudyResults) -> tuple[Download, ...]:
    """``trials.csv`` and ``trials.json``; nothing of a study without trials."""
    if not results.trials:
        return ()
    return (
        Download("trials.csv", "text/csv", _csv(results.trials), "one row per trial"),
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


def _csv(trials: tuple[TrialRecord, ...]) -> str:
    names = tuple(dict.fromkeys(name for t in trials for name in t.spec.hyperparameters))
    metrics = sorted({m for t in trials if t.outcome for m in t.outcome.test_metrics})
    rows = [_row(trial, names, metrics) for trial in trials]
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row(trial: TrialRecord, names: tuple[str, ...], metrics: list[str]) -> dict[str, Any]:
    spec, end = trial.spec, trial.outcome
    return {
        **{name: getattr(spec, name) for name in _SPEC},
        "state": trial.state.value,
        "status": end.status if end else None,
        **{name: spec.hyperparameters.get(name) for name in names},
        **{name: getattr(spec, name) for name in _SEEDS},
        "steps": spec.steps,
        "steps_done": steps_done(trial),
        "validation_loss": score_of(trial),
        "best_step": end.best_step if end else None,
        "test_loss": end.test_loss if end else None,
        **{f"test_{name}": end.test_metrics.get(name) if end else None for name in metrics},
        "retention_loss": end.retention_loss if end else None,
        "device_seconds": device_seconds_of(trial),
        "cold_device_seconds": cold_device_seconds_of(trial),
        "peak_memory_bytes": peak_memory_of(trial),
        "ray_train_job": trial.ray_train_job,
        "started": trial.started,
        "finished": trial.finished,
        "reason": end.reason if end else None,
    }


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
