"""Results folders that hold something of the user's: refused before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from study import plan_study
from study.basics.errors import UserError
from study.cli.best import Format, write_best
from study.cli.check import _log_file
from study.cli.export import export_and_print
from study.cli.files import clean_study
from study.config.load import load_config
from study.orchestration.final import train_final
from study.orchestration.preflight.base import Checklist, Status
from study.orchestration.preflight.examination import Examination
from study.orchestration.preflight.study_check import check_here
from study.report import write_report
from study.store.study_store import StudyStore
from tests.helpers.commands import study
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.final_runs import finished as final_run
from tests.helpers.models import tiny_model_folder
from tests.helpers.results import make_config, make_results
from tests.orchestration.preflight.listener import Listener


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny_model_folder(folder)
    (folder / "data" / "mine").mkdir(parents=True)
    write_jsonl(folder / "data" / "mine" / "train.jsonl", task_rows(120))
    write_jsonl(folder / "data" / "other.jsonl", task_rows(20))
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A project whose results are to go beside its own `data/`."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    config = {
        "name": "here",
        "model": {"path": "./tiny-llama-0"},
        "data": {"train": "data/mine/train.jsonl", "prompt": "{question}", "response": "{answer}"},
        "dataset_sizes": [24],
        "arms": ["full"],
        "search": {"trials": 1, "replicates": 1},
        "training": {"global_batch_size": 8, "sequence_length": 48, "steps": 8},
        "resources": {"gpus_per_worker": 0},
        "storage": {"results": "."},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", [("plan",), ("run",), ("clean", "--yes"), ("clean", "--all")])
def test_ones_own_data_folder_is_left_and_the_place_refused(
    project: Path, command: tuple[str, ...]
) -> None:
    before = files(project)
    done = study(*command, cwd=project)
    assert done.returncode == 2, done.stdout
    told = " ".join(done.stderr.split())
    assert f"{project} holds data/ (mine, other.jsonl), which this program did not make" in told
    assert f"such as {project}/results" in told and "Traceback" not in told
    assert files(project) == before


def test_a_check_says_so_and_writes_elsewhere(project: Path, tmp_path: Path) -> None:
    before = files(project)
    config = load_config(project / "study.yaml")
    assert not _log_file(config).is_relative_to(project)
    checks = Checklist(Listener(), "look at the log")
    check_here(checks, Examination(config), tmp_path / "scratch")
    found = {result.name: result for result in checks.results}
    assert found["storage"].status is Status.FAIL and "did not make" in found["storage"].found
    assert found["data"].status is Status.PASS
    assert files(project) == before


def test_the_folder_of_the_data_can_hold_the_results_and_is_cleaned_of_them_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((project / "study.yaml").read_text())
    config["storage"] = {"results": "data/mine"}
    (project / "study.yaml").write_text(yaml.safe_dump(config))
    before = files(project)
    for _ in range(2):
        plan_study(load_config(project / "study.yaml"))
    StudyStore.create(load_config(project / "study.yaml"))
    (project / "data" / "mine" / "data" / "notes.txt").write_text("mine too")
    monkeypatch.chdir(project)
    clean_study("study.yaml", everything=False, yes=True)
    assert "Left there" in capsys.readouterr().out
    assert (project / "data" / "mine" / "data" / "notes.txt").read_text() == "mine too"
    (project / "data" / "mine" / "data" / "notes.txt").unlink()
    clean_study("study.yaml", everything=True, yes=True)
    assert files(project) == before


def test_a_database_with_other_studies_is_not_cleaned_with_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "other"):
        StudyStore.create(make_config(name=name, storage={"results": str(tmp_path / "results")}))
    config = make_config(name="mine", storage={"results": str(tmp_path / "results")})
    before = files(tmp_path)
    monkeypatch.setattr("study.cli.files.study_file", lambda study: Path(study))
    monkeypatch.setattr("study.cli.files.load_config", lambda path: config)
    with pytest.raises(UserError, match="holds other studies too: other"):
        clean_study("mine.yaml", everything=True, yes=True)
    assert files(tmp_path) == before


def test_a_final_run_uses_no_folder_of_somebody_elses(tmp_path: Path) -> None:
    recipe, _ = final_run()
    (tmp_path / "my-model.run" / "model").mkdir(parents=True)
    write_jsonl(tmp_path / "my-model.run" / "model" / "mine.jsonl", task_rows(1))
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"model/ \(mine.jsonl\), which this program did not make"):
        train_final(recipe, str(tmp_path / "my-model.run"), observer=None)  # type: ignore[arg-type]
    assert files(tmp_path) == before


def test_a_report_replaces_reports_alone(tmp_path: Path) -> None:
    results = make_results(sizes=[64])
    (tmp_path / "trials.csv").write_text("mine")
    with pytest.raises(UserError, match=r"trials\.csv, which is no report of this program's"):
        write_report(results, tmp_path)
    assert files(tmp_path) == {tmp_path / "trials.csv": b"mine"}
    for _ in range(2):
        write_report(results, tmp_path / "new")


@pytest.mark.parametrize("output", ["mine.yaml", "trials.csv", "trials.parquet"])
def test_an_export_replaces_exports_alone(finished: Path, tmp_path: Path, output: str) -> None:
    path = tmp_path / output

    def write() -> None:
        if output == "mine.yaml":
            write_best(str(finished), "full", None, Format.STUDY, str(path))
        else:
            export_and_print(str(finished), str(path), "trials")

    for content in (b"mine: 1\n", b"PAR1mine"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=output):
            write()
        assert path.read_bytes() == content
    path.unlink()
    write()
    write()
