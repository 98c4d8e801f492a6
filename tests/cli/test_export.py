"""`study export`: files that other programs read, and what is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas
import pytest

from study.basics.errors import UserError
from study.cli.export import export_and_print
from study.store.study_store import StudyStore
from tests.helpers.commands import study
from tests.helpers.results import make_config


def test_a_parquet_file_holds_every_trial(finished: Path, tmp_path: Path) -> None:
    done = study("export", str(finished), "--output", "trials.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = pandas.read_parquet(tmp_path / "trials.parquet")
    assert f"Wrote {len(frame)} trials to trials.parquet" in done.stdout
    assert len(frame) == 12 and {"learning_rate", "seed", "device_seconds"} <= set(frame.columns)
    assert frame[frame.stage == "confirm"].test_loss.notna().all()


def test_without_a_file_it_prints_csv(finished: Path, tmp_path: Path) -> None:
    done = study("export", str(finished), "--what", "evaluations", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.returncode == 0 and len(rows) == 12
    assert {"trial_id", "step", "validation_loss"} <= rows[0].keys()


def test_a_url_is_written_to(finished: Path, tmp_path: Path) -> None:
    url = f"{tmp_path.as_uri()}/bucket/trials.csv"
    export_and_print(str(finished), url, "trials")
    written = (tmp_path / "bucket" / "trials.csv").read_text()
    assert len(list(csv.DictReader(io.StringIO(written)))) == 12


def test_another_kind_of_file_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trials\.xlsx: the name must end in \.parquet or \.csv"):
        export_and_print(str(tmp_path), str(tmp_path / "trials.xlsx"), "trials")


def test_a_study_without_trials_writes_no_file(tmp_path: Path) -> None:
    StudyStore.create(make_config(storage={"results": str(tmp_path / "new")}))
    with pytest.raises(UserError, match="no evaluations on record yet"):
        export_and_print(str(tmp_path / "new"), str(tmp_path / "a.csv"), "evaluations")
    assert not (tmp_path / "a.csv").exists()


def test_a_file_that_cannot_be_written_is_one_line(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = study("export", str(finished), "--output", "file/trials.csv", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "file" in done.stderr
