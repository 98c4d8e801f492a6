"""A study's trials and evaluations as flat rows: one table for the report, exports and pandas."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from study.analysis import cold_device_seconds_of, peak_memory_of, score_of, steps_done
from study.basics.text_safety import csv_cell
from study.protocol.records import Measurement, TrialRecord
from study.protocol.results import StudyResults, device_seconds_of

if TYPE_CHECKING:
    import pandas

What = Literal["trials", "evaluations"]
Row = dict[str, Any]

_TRIAL = ("trial_id", "arm", "size", "replicate", "stage", "index")
_SEEDS = ("seed", "subset_seed", "order_seed")
_INTEGERS = frozenset(
    {"size", "replicate", "index", *_SEEDS, "steps", "steps_done", "best_step", "step", "tokens",
     "phase", "peak_memory_bytes"}
)  # fmt: skip
_TEXTS = frozenset(
    {"study", "trial_id", "arm", "stage", "state", "status", "ray_train_job", "reason"}
)


def rows_of(results: StudyResults, what: What = "trials") -> list[Row]:
    """Rows with the same keys in the same order.

    Args:
        what: ``trials``: each trial of the plan, waiting ones too: hyperparameters as columns,
            seeds, state, scores, costs, library versions. ``evaluations``: each evaluation of each
            trial, which are its curves. Losses are nats, times seconds (``started`` and
            ``finished`` since the epoch, UTC), memory bytes.
    """
    return _trials(results) if what == "trials" else _evaluations(results)


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with a header; a value that is missing is an empty field. Names and texts are
    safe in a spreadsheet, see `csv_cell`; a Parquet file has them as they are."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if rows:
        writer.writerow([csv_cell(name) for name in rows[0]])
    writer.writerows([csv_cell(value) for value in row.values()] for row in rows)
    return file.getvalue()


def to_parquet(rows: Sequence[Row]) -> bytes:
    """Rows as a Parquet file; a column has the same type whether or not a value is there."""
    import pyarrow
    from pyarrow import parquet

    columns = _columns(rows)
    kinds = {"int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    arrays = {
        name: pyarrow.array(_cast(values, kind), kinds.get(kind, pyarrow.string()))
        for name, values in columns.items()
        for kind in (_kind(name, values),)
    }
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), file)
    return file.getvalue()


def to_frame(rows: Sequence[Row]) -> pandas.DataFrame:
    """Rows as a pandas frame; what is missing is ``NA``, also among whole numbers, truth values and
    texts."""
    import pandas

    kinds = {"int": "Int64", "float": "float64", "bool": "boolean"}
    columns = _columns(rows)
    return pandas.DataFrame(
        {
            name: pandas.Series(_cast(values, kind), dtype=kinds.get(kind, "string"))
            for name, values in columns.items()
            for kind in (_kind(name, values),)
        }
    )


def _trials(results: StudyResults) -> list[Row]:
    trials = results.trials
    names = _names(t.spec.hyperparameters for t in trials)
    ends = [t.outcome for t in trials if t.outcome is not None]
    metrics = sorted(_names(end.test_metrics for end in ends))
    libraries = sorted(_names(end.versions for end in ends))
    return [_trial(results.config.name, trial, names, metrics, libraries) for trial in trials]


def _trial(
    study: str,
    trial: TrialRecord,
    names: Sequence[str],
    metrics: Sequence[str],
    libraries: Sequence[str],
) -> Row:
    spec, end = trial.spec, trial.outcome
    return {
        "study": study,
        **{name: getattr(spec, name) for name in _TRIAL},
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
        "checkpoint_device_seconds": end.checkpoint_device_seconds if end else None,
        "train_seconds": end.train_seconds if end else None,
        "peak_memory_bytes": peak_memory_of(trial),
        "ray_train_job": trial.ray_train_job,
        "started": trial.started,
        "finished": trial.finished,
        "reason": end.reason if end else None,
        **{f"{name}_version": end.versions.get(name) if end else None for name in libraries},
    }


def _evaluations(results: StudyResults) -> list[Row]:
    metrics = sorted(_names(m.validation_metrics for t in results.trials for m in t.measurements))
    return [
        {"study": results.config.name}
        | {name: getattr(trial.spec, name) for name in _TRIAL}
        | numbers_of(measurement, metrics)
        for trial in results.trials
        for measurement in trial.measurements
    ]


def numbers_of(measurement: Measurement, metrics: Iterable[str] | None = None) -> Row:
    """An evaluation as flat values, by the names of its fields; a metric of the validation split
    is ``validation_<metric>``.

    Args:
        metrics: which; None: those that it has.
    """
    row = {
        field.name: getattr(measurement, field.name)
        for field in dataclasses.fields(measurement)
        if field.name != "validation_metrics"
    }
    found = measurement.validation_metrics
    wanted = found if metrics is None else metrics
    return row | {f"validation_{name}": found.get(name) for name in wanted}


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Their keys, each once, as they come."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _kind(name: str, values: Sequence[Any]) -> str:
    """Of a column: what is known of its name, else what all its values are."""
    if name in _INTEGERS:
        return "int"
    if name in _TEXTS or name.endswith("_version"):
        return "text"
    found = [v for v in values if v is not None]
    if found and all(isinstance(v, bool) for v in found):
        return "bool"
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in found):
        return "text"
    whole = found and all(isinstance(v, int) for v in found)
    return "int" if whole else "float"


def _cast(values: Sequence[Any], kind: str) -> list[Any]:
    if kind == "text":
        return [None if v is None else str(v) for v in values]
    if kind == "float":
        return [None if v is None or math.isnan(v) else float(v) for v in values]
    return list(values)
