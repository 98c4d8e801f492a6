"""What is found wrong without Ray: storage, database, data, model, lengths, disk."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.basics.errors import ModelError
from study.basics.owned import MARK
from study.config.load import StudyConfig
from study.orchestration.preflight import local
from study.orchestration.preflight.base import Checklist, CheckResult, Status
from study.orchestration.preflight.examination import Examination
from study.orchestration.preflight.study_check import check_here
from study.store.study_store import StudyStore
from tests.helpers.data import study_config, task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.orchestration.preflight.listener import Listener

GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    tiny_model_folder(folder)
    tiny_model_folder(folder, "gpt2")
    write_jsonl(folder / "mine.jsonl", task_rows(80))
    return folder


def make_config(folder: Path, name: str = "tiny-llama-0", **changes: Any) -> StudyConfig:
    fields: dict[str, Any] = {
        "model": {"path": str(folder / name)},
        "dataset_sizes": [16],
        "arms": {"full": {}, "lift": {"group_size": 2}},
        "storage": {"results": str(folder / "results")},
    }
    data = {"train": str(folder / "mine.jsonl"), "prompt": "{question}", "response": "{answer}"}
    return study_config(changes.pop("data", data), **(fields | changes))


def check(config: StudyConfig, scratch: Path) -> tuple[dict[str, CheckResult], Examination]:
    checks, facts = Checklist(Listener(), "look at the log"), Examination(config)
    check_here(checks, facts, scratch)
    return {result.name: result for result in checks.results}, facts


def test_a_study_that_can_run_passes_and_leaves_only_its_data(folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, storage={"results": str(tmp_path / "results")})
    found, facts = check(config, tmp_path / "scratch")
    assert {r.status for r in found.values()} == {Status.PASS}, found
    assert "64 examples to train on" in found["data"].found
    assert "4 blocks" in found["model"].found
    assert facts.data.longest <= 64 and facts.phases.keys() == {"full", "lift"}
    assert {p.name for p in (tmp_path / "results").iterdir()} == {"data", MARK}


def test_all_that_is_wrong_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    """Nobody, root neither, makes a folder in /proc; the data are looked at all the same."""
    config = make_config(
        folder, dataset_sizes=[500], model={"path": str(folder)}, storage={"results": "/proc/none"}
    )
    found, _ = check(config, tmp_path)
    assert found["storage"].status is Status.FAIL
    assert "/proc" in found["storage"].found and "storage.results" in found["storage"].remedy
    assert found["database"].status is Status.SKIP
    assert found["model"].status is Status.FAIL and "config.json" in found["model"].found
    assert found["tokens"].status is Status.SKIP and found["plan"].status is Status.SKIP


def test_sizes_beyond_the_pool_fail_even_where_nothing_can_be_stored(
    folder: Path, tmp_path: Path
) -> None:
    storage = {"results": "/proc/none"}
    found, _ = check(make_config(folder, dataset_sizes=[16, 500], storage=storage), tmp_path)
    assert found["data"].status is Status.FAIL
    assert "500 exceed the 64 training examples" in found["data"].found
    assert "Use sizes up to 64" in found["data"].remedy
    assert found["model"].status is Status.PASS


def test_a_broken_data_file_fails_with_its_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "good"}\n{"text": \n')
    data = {"train": str(tmp_path / "broken.jsonl"), "text": "text"}
    found, _ = check(make_config(folder, data=data), tmp_path)
    assert found["data"].status is Status.FAIL and "broken.jsonl" in found["data"].found
    assert found["data"].remedy


def test_a_truncated_weight_file_fails(folder: Path, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    found, _ = check(make_config(folder, model={"path": str(model)}), tmp_path)
    assert found["model"].status is Status.FAIL
    assert "model.safetensors" in found["model"].found
    assert "Download or save" in found["model"].remedy


def lengths(folder: Path, model: str, sequence_length: int, longest: int) -> Any:
    config = make_config(folder, model, sequence_length=sequence_length)
    _, shape = local.check_model(config)
    return local.check_tokens(config, shape, SimpleNamespace(longest=longest, highest_token=260))


def test_examples_longer_than_a_table_of_positions_fail(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"^training.sequence_length: .*400 tokens.*made for 128"):
        lengths(folder, "tiny-gpt2-0", 512, 400)


def test_lengths_that_a_model_computes_but_never_saw_are_a_warning(folder: Path) -> None:
    assert lengths(folder, "tiny-llama-0", 512, 400).status is Status.WARN
    assert lengths(folder, "tiny-gpt2-0", 512, 100).status is Status.WARN
    assert lengths(folder, "tiny-gpt2-0", 128, 100).status is Status.PASS


def test_a_tokenizer_with_more_ids_than_the_model_fails(folder: Path) -> None:
    config = make_config(folder)
    _, shape = local.check_model(config)
    data = SimpleNamespace(longest=10, highest_token=shape.vocabulary)
    with pytest.raises(ModelError, match=r"^model.tokenizer: .*token id 261"):
        local.check_tokens(config, shape, data)


@pytest.mark.parametrize(
    ("free", "status"), [(5 * GIB, Status.PASS), (4 * GIB, Status.FAIL), (0, Status.FAIL)]
)
def test_too_little_disk_for_the_checkpoints_of_the_largest_arm_fails(
    folder: Path, free: int, status: Status
) -> None:
    """Two trials with an old and a new checkpoint of 0.9 GiB each: 3.6 GiB, and one to spare."""
    finding = local.check_disk(make_config(folder), [int(0.9 * GIB), GIB // 2], 2, free)
    assert finding.status is status
    assert "take about 3.6 GiB" in finding.found
    assert bool(finding.remedy) == (status is Status.FAIL)


def test_a_database_that_does_not_answer_fails_without_its_password(
    folder: Path, tmp_path: Path
) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/none"
    found, _ = check(make_config(folder, storage={"results": str(tmp_path), "database": url}),
                     tmp_path)  # fmt: skip
    assert found["database"].status is Status.FAIL
    assert "secret" not in found["database"].found + found["database"].remedy
    assert "storage.database" in found["database"].remedy


def test_looking_at_a_new_database_makes_none(folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, storage={"results": str(tmp_path)})
    finding, store = local.check_database(config)
    assert finding.status is Status.PASS and store is None
    assert not list(tmp_path.iterdir())


def test_a_study_on_record_is_found(folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, storage={"results": str(tmp_path)})
    StudyStore.create(config)
    finding, store = local.check_database(config)
    assert store is not None and re.search("this study, 0 trials ended", finding.found)
