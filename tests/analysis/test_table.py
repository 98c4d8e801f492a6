"""Trials and evaluations as flat rows: the same everywhere, and typed where types exist."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pandas
import pytest
from pyarrow import parquet

from study import evaluations_frame, trials_frame
from study.analysis.table import What, rows_of, to_csv, to_frame, to_parquet
from study.protocol.records import TrialRecord, TrialState
from study.protocol.results import StudyResults
from study.report.downloads import trial_downloads
from tests.helpers.results import VERSIONS, make_results, make_trial

RESULTS = make_results(sizes=[64, 128], failures=("lift-n64-r1-s2",), progress=0.9)


def _of(*trials: TrialRecord) -> StudyResults:
    return replace(RESULTS, trials=trials)


def test_a_trials_row_has_what_it_was_and_what_came_of_it() -> None:
    rows = rows_of(RESULTS)
    assert [row["trial_id"] for row in rows] == [t.spec.trial_id for t in RESULTS.trials]
    row, trial = rows[0], RESULTS.trials[0]
    assert trial.outcome is not None
    assert row["learning_rate"] == trial.spec.hyperparameters["learning_rate"]
    assert (row["seed"], row["subset_seed"]) == (trial.spec.seed, trial.spec.subset_seed)
    assert (row["validation_loss"], row["best_step"]) == (trial.score, trial.outcome.best_step)
    assert row["torch_version"] == VERSIONS["torch"]
    assert {row["state"] for row in rows} >= {"COMPLETE", "FAIL", "WAITING"}


def test_evaluations_are_the_curves() -> None:
    rows = rows_of(RESULTS, "evaluations")
    assert len(rows) == sum(len(t.measurements) for t in RESULTS.trials)
    for trial in RESULTS.trials[:5]:
        own = [row for row in rows if row["trial_id"] == trial.spec.trial_id]
        assert [row["step"] for row in own] == [m.step for m in trial.measurements]
        assert [row["validation_loss"] for row in own] == [
            m.validation_loss for m in trial.measurements
        ]


def test_a_classifiers_metrics_are_columns_of_all_rows() -> None:
    trial = RESULTS.trials[0]
    first = replace(trial.measurements[0], validation_metrics={"accuracy": 0.9})
    rows = rows_of(_of(replace(trial, measurements=(first, trial.measurements[1]))), "evaluations")
    assert [row["validation_accuracy"] for row in rows] == [0.9, None]


def test_a_cell_of_a_csv_file_that_begins_like_a_formula_is_text_and_numbers_stay_numbers() -> None:
    trial = next(t for t in RESULTS.trials if t.outcome is not None and t.score is not None)
    assert trial.outcome is not None
    outcome = replace(trial.outcome, reason='=HYPERLINK("http://x";"y")')
    chosen = {**trial.spec.hyperparameters, "learning_rate": -1.5, "+order": "-x\r\x1b"}
    spec = replace(trial.spec, hyperparameters=chosen)
    text = to_csv(rows_of(_of(replace(trial, spec=spec, outcome=outcome))))
    for cell in next(csv.reader(io.StringIO(text.split("\n", 1)[1]))):
        assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell
    read = pandas.read_csv(io.StringIO(text))
    assert read["reason"][0] == '\'=HYPERLINK("http://x";"y")'
    assert read["'+order"][0] == r"'-x\r\x1b"
    assert read["learning_rate"][0] == -1.5 and read["size"].dtype.kind == "i"


def test_csv_reads_back() -> None:
    rows = rows_of(RESULTS)
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [row["trial_id"] for row in read] == [row["trial_id"] for row in rows]
    assert float(read[0]["learning_rate"]) == rows[0]["learning_rate"]
    assert read[-1]["validation_loss"] == ""


@pytest.mark.parametrize("what", ["trials", "evaluations"])
def test_parquet_holds_the_same_values_with_types(what: What) -> None:
    rows = rows_of(RESULTS, what)
    table = parquet.read_table(io.BytesIO(to_parquet(rows)))
    assert table.to_pylist() == rows
    assert str(table.schema.field("size").type) == "int64"
    assert str(table.schema.field("validation_loss").type) == "double"


def test_types_do_not_depend_on_which_values_are_there() -> None:
    full = parquet.read_table(io.BytesIO(to_parquet(rows_of(RESULTS)))).schema
    waiting = make_trial(state=TrialState.WAITING, hyperparameters={"learning_rate": 1e-4})
    alone = parquet.read_table(io.BytesIO(to_parquet(rows_of(_of(waiting))))).schema
    shared = set(full.names) & set(alone.names)
    assert shared >= {"test_loss", "best_step", "reason", "started"}
    assert all(full.field(name).type == alone.field(name).type for name in shared)


def test_hyperparameters_of_any_kind_are_columns() -> None:
    points = (
        {"learning_rate": 1e-4, "group_size": 2, "cumulative": True, "groups": [2, 4]},
        {"learning_rate": 2, "order": "random"},
    )
    rows = rows_of(_of(*(make_trial(index=k, hyperparameters=p) for k, p in enumerate(points))))
    frame = to_frame(rows)
    assert [str(frame[name].dtype) for name in ("learning_rate", "group_size", "cumulative")] == [
        "float64", "Int64", "boolean",
    ]  # fmt: skip
    assert frame["groups"][0] == "[2, 4]" and pandas.isna(frame["groups"][1])
    assert parquet.read_table(io.BytesIO(to_parquet(rows)))["order"].to_pylist() == [None, "random"]


def test_one_line_gives_a_frame() -> None:
    trials, evaluations = trials_frame(RESULTS), evaluations_frame(RESULTS)
    done = trials[trials.state == "COMPLETE"]
    assert done.validation_loss.notna().all()
    lowest = evaluations.groupby("trial_id").validation_loss.min()
    assert (lowest[done.trial_id].to_numpy() == done.validation_loss.to_numpy()).all()


def test_the_reports_csv_is_this_table() -> None:
    assert trial_downloads(RESULTS)[0].text == to_csv(rows_of(RESULTS))


def test_nothing_on_record_is_an_empty_frame() -> None:
    assert len(trials_frame(_of())) == 0
