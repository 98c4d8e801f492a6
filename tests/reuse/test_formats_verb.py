"""`study best --format`: one file to standard output, all of them to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.basics.errors import UserError
from study.cli.best import Format, write_best
from study.reuse.formats import FORMATS
from tests.helpers.results import make_results


@pytest.fixture(autouse=True)
def finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study on record; how records are read is tested elsewhere."""
    results = make_results(sizes=[64])
    monkeypatch.setattr("study.cli.files.results_named", lambda study: results)


def test_the_verb_knows_every_format() -> None:
    assert [name.value for name in Format] == list(FORMATS)


def test_standard_output_gets_one_file_and_hears_of_the_others(capsys: Any) -> None:
    write_best("study.yaml", "full", None, Format.LLAMAFACTORY, None)
    said = capsys.readouterr()
    assert yaml.safe_load(said.out)["finetuning_type"] == "full"
    assert "Not shown: dataset_info.json" in said.err
    write_best("study.yaml", "full", None, Format.TRANSFORMERS, None)
    said = capsys.readouterr()
    assert yaml.safe_load(said.out)["learning_rate"] > 0 and said.err == ""


def test_a_folder_gets_all_files(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "new"
    for _ in range(2):  # its own files it may replace
        write_best("study.yaml", "full", None, Format.DEEPSPEED, f"{folder}/")
    assert json.loads((folder / "deepspeed.json").read_text())["train_batch_size"] == 8
    assert "For DeepSpeed" in (folder / "deepspeed.txt").read_text()
    write_best("study.yaml", "full", None, Format.STUDY, str(folder))
    assert yaml.safe_load((folder / "best.yaml").read_text())["arm"] == "full"
    write_best("study.yaml", "full", None, Format.AXOLOTL, str(tmp_path / "mine.yaml"))
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["max_steps"] > 0
    assert capsys.readouterr().out.count("Wrote ") == 6


def test_another_tools_dataset_info_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=r"dataset_info\.json.*folder of its own"):
        write_best("study.yaml", "full", None, Format.LLAMAFACTORY, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_info.json"]


def test_a_refused_format_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot express LIFT"):
        write_best("study.yaml", "lift", None, Format.TRANSFORMERS, f"{tmp_path}/new/")
    assert not (tmp_path / "new").exists()
