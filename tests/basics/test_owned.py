"""What is the program's to delete, and what is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from study.basics import owned
from study.basics.errors import StoreError
from study.basics.owned import MARK, REMAKEABLE, claim, claim_url, everything, remove, remove_url
from study.basics.remote import RemoteFolder
from study.store.study_store import StudyStore
from tests.helpers.results import make_config

VERSION, KEY = "0123456789abcdef", "0123456789abcdef01234567"
SUMMARY = '{"summary": {"fingerprint": "f"}}'


def tree(folder: Path) -> dict[str, str | None]:
    """Every file with its content, every folder and link."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(errors="replace")
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(SUMMARY if name.endswith("summary.json") else "mine")
    return root


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("data/train.jsonl", r"data/ \(train.jsonl\)"),
        ("data/a/b/c.csv", r"data/ \(a\)"),
        (f"data/{VERSION}/train.jsonl", rf"data/ \({VERSION}\)"),
        (f"prefix_cache/host/{KEY}/x.rows", r"prefix_cache/ \(host\)"),
        ("report/report.html", r"report/ \(report.html\)"),
        ("model/model.safetensors", r"model/ \(model.safetensors\)"),
        ("checkpoints/full-n24-r0-s0/step-4", r"checkpoints/ \(full-n24-r0-s0\)"),
        ("ray/tune/file", r"ray/ \(tune\)"),
        ("logs/study.log", r"logs/ \(study.log\)"),
        ("data", "holds data,"),
        ("study.db", "study.db"),
        ("mlflow.db", "mlflow.db"),
    ],
)
def test_a_folder_with_other_files_under_our_names_is_refused_as_it_is(
    tmp_path: Path, name: str, shown: str
) -> None:
    before = tree(write(tmp_path, name, "train.jsonl"))
    with pytest.raises(StoreError, match=rf"{shown}.*did not make.*Nothing was written"):
        claim(tmp_path)
    assert tree(tmp_path) == before


def test_a_link_is_looked_through_and_a_broken_one_is_in_the_way(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", "train.jsonl")
    for name, target in (("linked", mine), ("broken", tmp_path / "nothing")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(target)
        with pytest.raises(StoreError, match="did not make"):
            claim(tmp_path / name)
    (tmp_path / "other-disk").mkdir()
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "data").symlink_to(tmp_path / "other-disk")
    claim(tmp_path / "fine")


def test_files_of_other_names_are_no_hindrance_and_stay(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", "study.yaml", "notes/data/x")
    before = tree(tmp_path)
    (tmp_path / "data").mkdir()  # empty
    claim(tmp_path)
    claim(tmp_path)
    write(tmp_path, f"data/{VERSION}/summary.json", "data/current", "report/report.html")
    remove(tmp_path, everything(tmp_path))
    assert tree(tmp_path) == before


def test_what_other_programs_add_to_a_folder_that_is_not_ours_alone_stays(tmp_path: Path) -> None:
    claim(tmp_path)
    theirs = [
        "logs/mine.log", "checkpoints/mine/step-4", "tensorboard/mine", "wandb/run-1/x",
        "mlflow.db", "train.py",
    ]  # fmt: skip
    ours = [
        "logs/study.log", "logs/full-n24-r0-s0.log", "logs/baseline.rank1.log", "study.db",
        "checkpoints/full-n24-r0-c1/step-4", "tensorboard/lift-n24-r0-s0/events",
    ]  # fmt: skip
    write(tmp_path, *theirs, *ours)
    remove(tmp_path, everything(tmp_path))
    assert {name for name, content in tree(tmp_path).items() if content} == {*theirs}
    claim(tmp_path / "alone")
    write(tmp_path / "alone", "wandb/run-1/x", "mlflow.db", *ours)
    remove(tmp_path / "alone", everything(tmp_path / "alone"))
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize("proof", ["tokenised data", "record"])
def test_results_of_a_version_before_the_mark_are_known_by_what_only_it_wrote(
    tmp_path: Path, proof: str
) -> None:
    if proof == "record":
        StudyStore.create(make_config(storage={"results": str(tmp_path)}))
    else:
        write(tmp_path, f"data/{VERSION}/summary.json")
    write(tmp_path, "data/train.jsonl", "ray/tune/file", "logs/study.log", "report/report.html")
    claim(tmp_path)
    remove(tmp_path, REMAKEABLE)
    assert not (tmp_path / "ray").exists() and not (tmp_path / "data" / VERSION).exists()
    assert (tmp_path / "data" / "train.jsonl").read_text() == "mine", "its neighbours stay"


def test_another_programs_database_is_no_record(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match=r"study\.db"):
        claim(tmp_path)


def test_below_a_folder_of_ours_only_names_of_ours_go(tmp_path: Path) -> None:
    root = tmp_path / "results"
    claim(root)
    outside = write(tmp_path / "outside", "precious")
    kept = [
        "data/train.jsonl", "data/mine/x.csv", "data/fedcba9876543210/train.csv",
        "prefix_cache/notes.txt", f"prefix_cache/host/{KEY[:-1]}/x", "ray/mine.py",
    ]  # fmt: skip
    gone = [
        "data/current", f"data/{VERSION}/summary.json", f"data/{VERSION}/pool.tokens.npy",
        f"prefix_cache/host/{KEY}/pool.1.rows", "ray/tune/tuner.pkl", "ray/group1-ab12cd/x",
    ]  # fmt: skip
    write(root, *kept, *gone)
    (root / "data" / "link").symlink_to(outside)
    (root / "ray" / "tune" / "link").symlink_to(outside)
    remove(root, REMAKEABLE)
    left = {name for name, content in tree(root).items() if content is not None}
    assert left == {*kept, MARK}
    assert (root / "data" / "link" / "precious").read_text() == "mine"


def test_what_a_link_leads_to_is_emptied_of_ours_alone(tmp_path: Path) -> None:
    disk = write(tmp_path / "disk", "mine.txt", f"{VERSION}/summary.json")
    root = tmp_path / "results"
    claim(root)
    (root / "data").symlink_to(disk)
    remove(root, REMAKEABLE)
    assert tree(disk) == {"mine.txt": "mine"}


def test_a_folder_at_a_url_is_claimed_and_emptied_the_same_way(tmp_path: Path) -> None:
    url = (tmp_path / "bucket").as_uri()
    write(tmp_path / "bucket", "data/train.jsonl", "else/x")
    before = tree(tmp_path / "bucket")
    with pytest.raises(StoreError, match="holds data, which this program did not make"):
        claim_url(url)
    assert tree(tmp_path / "bucket") == before
    (tmp_path / "bucket" / "data" / "train.jsonl").unlink()
    claim_url(url)
    claim_url(url)
    write(tmp_path / "bucket", "data/current", "model/model.safetensors")
    remove_url(url)
    assert RemoteFolder(url).names() == ["else/x"]
    write(tmp_path / "earlier", "data/current", "logs/study.log", "results.json.gz")
    claim_url((tmp_path / "earlier").as_uri())
    assert (tmp_path / "earlier" / owned.MARK).is_file()


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"cannot be written .* Set storage.results"):
        claim(tmp_path / "file" / "results")
