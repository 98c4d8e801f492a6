"""Every trial, to take away: complete, and readable by other programs."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from dataclasses import replace

from study.protocol.records import TrialRecord
from study.report.downloads import trial_downloads
from study.report.html import data_uri, file_name
from tests.helpers.results import make_results

RESULTS = make_results(sizes=[64, 128], failures=("lift-n64-r1-s2",), progress=0.9)


def test_the_csv_has_a_row_per_trial_with_its_numbers() -> None:
    table = trial_downloads(RESULTS)[0]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["trial_id"] for row in rows] == [t.spec.trial_id for t in RESULTS.trials]
    for row, trial in zip(rows, RESULTS.trials, strict=True):
        rate = trial.spec.hyperparameters.get("learning_rate")
        assert row["learning_rate"] == ("" if rate is None else str(rate))
        assert row["validation_loss"] == ("" if trial.score is None else str(trial.score))
        assert row["state"] == trial.state.value
        assert int(row["subset_seed"]) == trial.spec.subset_seed


def test_the_json_gives_the_records_back() -> None:
    found = json.loads(trial_downloads(RESULTS)[1].text)
    assert (found["schema"], found["study"]) == (1, "synthetic")
    for data, trial in zip(found["trials"], RESULTS.trials, strict=True):
        kept = trial.outcome and replace(trial.outcome, test_losses=(), deepspeed_config={})
        assert TrialRecord.from_dict(data) == replace(trial, outcome=kept)


def test_numbers_that_are_not_finite_become_null() -> None:
    trial = RESULTS.trials[0]
    bad = replace(trial.measurements[0], train_loss=float("nan"), grad_norm=float("inf"))
    results = replace(RESULTS, trials=(replace(trial, measurements=(bad,)),))
    text = trial_downloads(results)[1].text
    read = json.loads(text)["trials"][0]["measurements"][0]
    assert "NaN" not in text and "Infinity" not in text
    assert (read["train_loss"], read["grad_norm"]) == (None, None)
    assert read["validation_loss"] == bad.validation_loss


def test_links_inside_the_page_hold_the_whole_files() -> None:
    table, records = trial_downloads(RESULTS)
    head, body = data_uri(table).split(",", 1)
    assert (head, file_name(table)) == ("data:text/csv;base64", "trials.csv")
    assert base64.b64decode(body).decode() == table.text
    head, body = data_uri(records).split(",", 1)
    assert (head, file_name(records)) == ("data:application/gzip;base64", "trials.json.gz")
    assert gzip.decompress(base64.b64decode(body)).decode() == records.text


def test_a_study_without_trials_has_nothing_to_take_away() -> None:
    assert trial_downloads(replace(RESULTS, trials=())) == ()
