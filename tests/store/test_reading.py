"""What a verb is given is where it works, whatever the record says about where that was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from study.basics.errors import StoreError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.cli.app import app
from study.protocol.results import StudyResults
from study.reuse.past_studies import find_studies
from study.store.opening import open_study, read_study
from study.store.published import SharedResults, read_results
from tests.helpers.data import write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.results import make_config
from tests.helpers.stores import finished_study, write_store

TRIAL = "lift-n64-r0-s0"
SHAPE = {"sizes": (64,), "replicates": 1, "trials": 2, "confirm_seeds": 1}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study's results folder, with a report and a log: the one that its record names."""
    folder = tmp_path_factory.mktemp("made") / "original"
    config = make_config(**SHAPE, storage={"results": str(folder)})
    write_store(finished_study(config))
    log, report = folder / "logs" / f"{TRIAL}.log", folder / "report" / "report.html"
    log.parent.mkdir()
    log.write_text("of the original\n")
    run("report", str(folder))
    report.write_text("of the original\n")
    return folder


@pytest.fixture
def copied(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same somewhere else, which the record does not know."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, tmp_path / "copy")
    (tmp_path / "copy" / "logs" / f"{TRIAL}.log").write_text("of the copy\n")
    return tmp_path / "copy"


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments: str) -> Result:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    return ran


def flat(ran: Result) -> str:
    return "".join(ran.output.split())


def test_every_verb_works_in_the_copy_that_it_is_given(original: Path, copied: Path) -> None:
    before = content(original)
    assert f"Wrote {copied}/report/report.html" in run("report", "copy").output
    assert b"of the original" not in (copied / "report" / "report.html").read_bytes()
    shown = run("show", TRIAL, "copy").output
    assert "of the copy" in shown and "of the original" not in shown
    assert str(copied) in flat(run("status", "copy"))
    best = yaml.safe_load(run("best", "copy", "--arm", "lift").stdout)
    assert best["study"]["results"] == str(copied)
    run("export", "copy")
    run("clean", "copy", "--yes")
    open_study("copy").request_stop(TRIAL)
    ((found,), _) = find_studies(["copy"])
    assert found.results().place == str(copied)
    assert content(original) == before


def test_a_record_cannot_send_a_reader_elsewhere(
    original: Path, copied: Path, tmp_path: Path
) -> None:
    """As somebody may write it who hands a results folder on."""
    victim, store = tmp_path / "victim", open_study(copied)
    shutil.copytree(original, victim)
    before = content(victim)
    config = store.info("config")
    config["storage"] = {"results": str(victim), "database": f"sqlite:///{victim}/study.db"}
    store.set_info("config", config)
    database = f"sqlite:///{copied}/study.db"
    for source in (str(copied), database):
        run("report", source)
        assert "of the original" not in run("show", TRIAL, source).output
        assert str(victim) not in flat(run("status", source))
        assert str(victim) not in run("best", source, "--arm", "lift").stdout
        assert read_study(source).place in (str(copied), None)
    assert content(victim) == before
    # A database alone says nothing of files: the report is here, where nothing was before.
    assert (tmp_path / "synthetic-report" / "report.html").is_file()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["../../victim", "/etc/passwd", "..", "", "a/b"])
def test_a_trials_name_in_a_record_is_no_path(tmp_path: Path, name: str) -> None:
    paths = StudyPaths(tmp_path)
    for place in (paths.trial_log, paths.checkpoint):
        with pytest.raises(StoreError, match="no trial's name"):
            place(name)


def test_a_study_file_is_where_its_study_works(copied: Path, tmp_path: Path) -> None:
    """Its results folder was moved, and the file says so."""
    tiny_model_folder(tmp_path)
    write_jsonl(tmp_path / "mine.jsonl", [{"text": "one"}])
    config = {
        "name": "synthetic", "model": {"path": "./tiny-llama-0"}, "dataset_sizes": [64],
        "data": {"train": "mine.jsonl", "text": "text"}, "arms": ["full", "lift"],
        "storage": {"results": "copy"},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    run("report")
    assert b"of the original" not in (copied / "report" / "report.html").read_bytes()
    assert "of the copy" in run("show", TRIAL, "study.yaml").output
    assert open_study("study.yaml").config.results_dir == copied


def test_results_in_a_bucket_are_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_CACHE", str(tmp_path / "cache"))
    there, copy = (f"file://{tmp_path}/bucket/{name}" for name in ("first", "copied"))
    results: StudyResults = finished_study(make_config(**SHAPE, storage={"results": there}))
    shared = SharedResults(results.config, print)
    shared.publish(lambda: results, now=True)
    RemoteFolder(there).write(f"logs/{TRIAL}.log", b"of the original")
    shutil.copytree(tmp_path / "bucket" / "first", tmp_path / "bucket" / "copied")
    RemoteFolder(copy).write(f"logs/{TRIAL}.log", b"of the copy")
    assert read_results(copy).place == copy
    shown = run("show", TRIAL, copy).output
    assert "of the copy" in shown and "of the original" not in shown
    assert copy in flat(run("status", copy))
