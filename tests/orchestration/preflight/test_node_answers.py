"""What a node tells of itself, and what the answers of all mean."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

from study.orchestration.cluster.workers import Workers
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.node_task import (
    PACKAGE,
    Answer,
    Question,
    look_around,
    own_versions,
    unwritable,
)
from study.orchestration.preflight.nodes_judged import (
    Silent,
    check_accelerators,
    check_database_from_nodes,
    check_deepspeed,
    check_nodes,
    check_shared_paths,
    check_versions,
)

VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0"}
GOOD = Answer(VERSIONS, None, 2**30, {}, "")
RESULTS = Path("/shared/results")
TOKEN, MODEL = str(RESULTS / ".token"), "/models/llama/model.safetensors"
QUESTION = Question({TOKEN: "word"}, f"sqlite:///{RESULTS}/study.db", {MODEL: 10}, "/cache")


def answer(**changes: Any) -> Answer:
    return dataclasses.replace(GOOD, **changes)


def failed(finding: Finding, *telling: str) -> None:
    assert finding.status is Status.FAIL and finding.remedy
    for text in telling:
        assert text in finding.found + " | " + finding.remedy


def test_a_node_that_sees_everything_has_nothing_to_tell(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("word")
    (tmp_path / "weights").write_bytes(b"12345")
    question = Question(
        {str(tmp_path / "token"): "word"},
        f"sqlite:///{tmp_path}/study.db",
        {str(tmp_path / "weights"): 5},
        str(tmp_path / "cache"),
    )
    found = look_around(question)
    assert found.unseen == {} and found.database == ""
    assert found.memory > 0 and found.versions == own_versions()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["token", "weights"]


def test_a_node_tells_of_each_path_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another word")
    (tmp_path / "short").write_bytes(b"1")
    (tmp_path / "study.db").write_text("no database")
    names = {name: str(tmp_path / name) for name in ("missing", "other", "short")}
    question = Question(
        {names["missing"]: "word", names["other"]: "word"},
        f"sqlite:///{tmp_path}/study.db",
        {names["short"]: 5},
        str(tmp_path / "other" / "cache"),
    )
    found = look_around(question)
    assert found.unseen == {
        names["missing"]: "is not there",
        names["other"]: "another file is there",
        names["short"]: "has 1 bytes instead of 5",
        str(tmp_path / "other" / "cache"): f"{tmp_path / 'other'} is a file",
    }
    assert "not a database" in found.database


def test_a_folder_that_need_not_exist_is_writable_where_it_would_be_made(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "a" / "b") == ""
    assert list(tmp_path.iterdir()) == []
    assert "/proc" in unwritable(Path("/proc/study/results"))


def test_a_folder_of_somebody_elses_is_not_writable() -> None:
    # Not in tmp_path: nobody may look into the folders above it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        receiver, sender = multiprocessing.Pipe(duplex=False)

        def ask() -> None:
            if os.geteuid() == 0:  # root writes everywhere
                os.setuid(65534)
            sender.send(unwritable(folder))

        child = multiprocessing.get_context("fork").Process(target=ask)
        child.start()
        assert receiver.poll(30) and "Permission denied" in receiver.recv()
        child.join()


def test_the_packages_version_changes_with_its_code() -> None:
    assert own_versions()[PACKAGE].startswith("0.") and "(" in own_versions()[PACKAGE]


def test_equal_nodes_pass_and_one_with_another_library_fails() -> None:
    assert check_versions(VERSIONS, {"a": GOOD, "b": GOOD}).status is Status.PASS
    other = answer(versions=VERSIONS | {"torch": "2.12.0", "ray": "2.59.0"})
    finding = check_versions(VERSIONS, {"a": GOOD, "b": other})
    failed(finding, "ray 2.59.0 on b, 2.60.0 here.", "And 1 more.", "constraints.txt")


def test_a_node_that_cannot_run_the_package_fails_and_the_others_are_still_judged() -> None:
    answers = {"a": GOOD, "b": Silent("No module named 'study'")}
    failed(check_nodes(answers), "b cannot run", "No module named", "same environment")
    assert check_versions(VERSIONS, answers).status is Status.PASS


def test_a_node_that_does_not_see_the_results_folder_or_the_model_fails() -> None:
    good = {"a": GOOD, "b": GOOD}
    assert "from all 2 nodes" in check_shared_paths(RESULTS, QUESTION, good).found
    blind = answer(unseen={TOKEN: "is not there", MODEL: "is not there"})
    finding = check_shared_paths(RESULTS, QUESTION, {"a": GOOD, "b": blind})
    failed(finding, f"{TOKEN} is not there on b.", "And 1 more.", "storage.results", "the model")
    no_cache = answer(unseen={"/cache": "Read-only file system"})
    failed(check_shared_paths(RESULTS, QUESTION, {"a": no_cache}), "prefix_cache.folder")


def test_sqlite_on_a_node_that_does_not_see_it_fails_with_postgresql_as_remedy() -> None:
    blind = answer(unseen={TOKEN: "is not there"})
    finding = check_database_from_nodes(QUESTION, {"a": GOOD, "b": blind})
    failed(finding, f"b does not see {RESULTS}/study.db", "PostgreSQL")
    assert check_database_from_nodes(QUESTION, {"a": GOOD}).status is Status.PASS


def test_a_database_server_that_refuses_a_node_fails() -> None:
    question = dataclasses.replace(QUESTION, database="postgresql://host/study")
    refused = answer(database="Cannot open the study storage: no route to host.")
    finding = check_database_from_nodes(question, {"a": GOOD, "b": refused})
    failed(finding, "b: Cannot open", "lets every node in")


def test_nodes_with_other_gpus_than_the_studys_take_no_part() -> None:
    h100, a100 = ({"GPU": 8.0, f"accelerator_type:{kind}": 1.0} for kind in ("H100", "A100"))
    nodes, workers = [h100, a100, a100, {"GPU": 1.0}, {"CPU": 4.0}], Workers(2, 1, 1, "H100")
    finding = check_accelerators(workers, nodes)
    assert finding.status is Status.PASS
    assert finding.found == (
        "trials run on H100; nodes with other GPUs take no part: 2 x A100, 1 x GPUs without a name"
    )
    assert check_accelerators(workers, [h100, h100]).found == "all H100"
    assert "CPU" in check_accelerators(Workers(2, 1, 0), nodes).found
    assert "no accelerator type" in check_accelerators(Workers(2, 1, 1), [{"GPU": 8.0}]).found


def test_a_node_that_cannot_import_deepspeed_fails() -> None:
    failed(check_deepspeed({"a": 2.0, "b": Silent("no nvcc")}), "on b: no nvcc", "CUDA_HOME")
    assert "6 s" in check_deepspeed({"a": 2.0, "b": 6.0}).found
