"""What travels with a submitted study, and what is refused before anything is sent."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.basics.errors import ConfigError, UserError
from study.config.load import StudyConfig, load_config
from study.launch.submit import inputs
from study.launch.submit.inputs import PackedStudy, pack_study
from study.launch.submit.package import zip_study
from study.protocol.extension import changes
from study.reuse.warm_start import earlier_study, warm_start
from study.store.opening import label_of
from study.store.study_store import StudyStore
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.real_studies import write_study
from tests.helpers.stores import finished_study, write_store

RESULTS = "/shared/results/small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and its data."""
    here = tmp_path / "here"
    here.mkdir()
    tiny_model_folder(here)
    write_jsonl(here / "mine.jsonl", task_rows(120))
    return here


def study_in(folder: Path, **changed: Any) -> Path:
    return write_study(folder, **{"storage": {"results": RESULTS}} | changed)


def data(**changed: Any) -> dict[str, Any]:
    return {"prompt": "{question}", "response": "{answer}", "retention_size": 10} | changed


def unpacked(packed: PackedStudy, target: Path) -> StudyConfig:
    """The study as a job finds it."""
    target.mkdir()
    zip_study(packed, target / "study.zip")
    zipfile.ZipFile(target / "study.zip").extractall(target / "job")
    return load_config(target / "job" / packed.file_name)


def test_a_packed_study_is_the_same_study_somewhere_else(folder: Path, tmp_path: Path) -> None:
    path = study_in(folder, search={"space": "default", "trials": 2, "replicates": 1})
    packed = pack_study(path)
    there = unpacked(packed, tmp_path / "there")
    assert packed.on_cluster == ()
    assert Path(there.model.path).is_relative_to(tmp_path / "there" / "job")
    assert there.space() == load_config(path).space()
    here, there_again = load_config(path).to_dict(), there.to_dict()
    for settings in (here, there_again):
        del settings["model"]["path"], settings["data"]["train"]
    assert there_again == here


def test_texts_that_look_like_numbers_stay_texts(folder: Path, tmp_path: Path) -> None:
    model = {"path": "./tiny-llama-0", "revision": "1e5"}
    path = study_in(folder, model=model, data=data(train="mine.jsonl", prompt="1e-5\u2028 \n"))
    path.write_text(path.read_text().replace("revision: 1e5", "revision: '1e5'"))
    there = unpacked(pack_study(path), tmp_path / "there")
    assert (there.model.revision, there.data.prompt) == ("1e5", "1e-5\u2028 \n")


def test_the_search_space_is_written_out(folder: Path) -> None:
    (folder / "spaces").mkdir()
    space = "shared:\n  learning_rate: 1.0e-3\n  warmup_ratio: 0.1\n  max_grad_norm: 1.0\n"
    (folder / "spaces" / "mine.yaml").write_text(space)
    packed = pack_study(study_in(folder, search={"space": "spaces/mine.yaml", "trials": 2}))
    assert yaml.safe_load(packed.text)["search"]["space"]["shared"]["learning_rate"] == 1e-3
    assert not any("spaces" in name for name in packed.inputs)


@pytest.fixture(scope="module")
def on_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a study."""
    storage = {"results": str(tmp_path_factory.mktemp("on_record"))}
    write_store(finished_study(sizes=[64], trials=2, replicates=2, storage=storage))
    return Path(storage["results"])


@pytest.fixture
def earlier(folder: Path, on_record: Path) -> Path:
    """The same as ``earlier/results``."""
    return shutil.copytree(on_record, folder / "earlier" / "results")


@pytest.mark.parametrize(
    "named",
    ["earlier/results", "{folder}/earlier/results", "sqlite:///{folder}/earlier/results/study.db"],
)
def test_earlier_studies_travel_with_one_that_starts_from_them(
    folder: Path, tmp_path: Path, earlier: Path, named: str
) -> None:
    search = {"trials": 4, "warm_start": [named.format(folder=folder), "s3://bucket/another"]}
    path = study_in(folder, search=search)
    packed = pack_study(path)
    assert packed.on_cluster == ()  # a bucket is reached from everywhere
    there = unpacked(packed, tmp_path / "there")
    travelled, bucket = there.search.warm_start
    assert bucket == "s3://bucket/another"
    assert Path(travelled).is_relative_to(tmp_path / "there" / "job")
    here = load_config(path).search.warm_start[0]
    starts = [
        warm_start(there, {label_of(source): earlier_study(source)}) for source in (here, travelled)
    ]
    assert starts[0] == starts[1]
    assert starts[0].trials == 2
    # What trained it, its data and its checkpoints stay at home.
    assert len([name for name in packed.inputs if "results" in name]) == 1


def test_a_study_goes_on_when_the_one_it_started_from_has_grown(
    folder: Path, tmp_path: Path, earlier: Path
) -> None:
    path = study_in(folder, search={"trials": 4, "warm_start": ["earlier/results"]})
    first = unpacked(pack_study(path), tmp_path / "a")
    store = StudyStore.open(f"sqlite:///{earlier}/study.db")
    store.set_info("seconds", 99.0)
    again = unpacked(pack_study(path), tmp_path / "b")
    assert changes(first, again) == ()


def test_an_earlier_study_that_cannot_travel_is_named_or_refused(folder: Path) -> None:
    path = study_in(folder, search={"trials": 4, "warm_start": ["/shared/results/earlier"]})
    assert pack_study(path).on_cluster == (("search.warm_start", "/shared/results/earlier"),)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"search\.warm_start: .*/empty cannot be read"):
        pack_study(study_in(folder, search={"trials": 4, "warm_start": ["empty"]}))
    with pytest.raises(ConfigError, match=r"search\.warm_start\.0.*no such study"):
        pack_study(study_in(folder, search={"trials": 4, "warm_start": ["missing"]}))


def test_two_jobs_of_the_same_files_are_one_study(folder: Path, tmp_path: Path) -> None:
    path = study_in(folder)
    first, second = (unpacked(pack_study(path), tmp_path / name) for name in ("a", "b"))
    assert first.model.path != second.model.path
    assert changes(first, second) == ()
    with (folder / "mine.jsonl").open("a") as file:
        file.write('{"question": "?", "answer": "!"}\n')
    third = unpacked(pack_study(path), tmp_path / "c")
    assert [change.path for change in changes(first, third)] == ["data.train"]


def test_the_same_study_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    path = study_in(folder)
    for name in ("a.zip", "b.zip"):
        zip_study(pack_study(path), tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    "train",
    ["parts/*.jsonl", "parts", ["parts/1.jsonl", "parts/0.jsonl"], "**/[01].jsonl"],
    ids=["glob", "folder", "list", "deep glob"],
)
def test_however_files_are_named_a_job_reads_the_same_ones(
    folder: Path, tmp_path: Path, train: str | list[str]
) -> None:
    from study.config.sources import find_source

    (folder / "parts").mkdir()
    for number in (0, 1):
        write_jsonl(folder / "parts" / f"{number}.jsonl", task_rows(60, start=60 * number))
    path = study_in(folder, data=data(train=train))
    there = unpacked(pack_study(path), tmp_path / "there")
    here = find_source("data.train", load_config(path).data.train, ()).files
    read = find_source("data.train", there.data.train, ()).files
    assert [file.read_bytes() for file in read] == [file.read_bytes() for file in here]
    assert all(file.is_relative_to(tmp_path / "there" / "job") for file in read)


def test_an_absolute_path_that_is_not_here_is_the_cluster_s(folder: Path) -> None:
    path = study_in(
        folder,
        model={"path": "/shared/models/llama"},
        data=data(train="/shared/data/*.jsonl", test=["/shared/test.jsonl"]),
    )
    packed = pack_study(path)
    assert packed.inputs == {}
    assert packed.on_cluster == (
        ("model.path", "/shared/models/llama"),
        ("data.train", "/shared/data/*.jsonl"),
        ("data.test", "/shared/test.jsonl"),
    )
    written = yaml.safe_load(packed.text)
    assert written["model"]["path"] == "/shared/models/llama"
    assert written["data"]["train"] == "/shared/data/*.jsonl"


def test_a_relative_path_that_is_not_here_is_a_mistake(folder: Path) -> None:
    path = study_in(folder, model={"path": "/shared/llama"}, data=data(train="mien.jsonl"))
    with pytest.raises(ConfigError, match=r"no file matches.*mien\.jsonl") as caught:
        pack_study(path)
    assert [fault.path for fault in caught.value.faults] == ["data.train"]


def test_every_other_fault_of_the_file_is_told(folder: Path) -> None:
    path = study_in(folder, model={"path": "/shared/llama"}, dataset_sizes=[0], seed="x")
    with pytest.raises(ConfigError) as caught:
        pack_study(path)
    assert {fault.path for fault in caught.value.faults} == {"dataset_sizes.0", "seed"}


def test_what_is_shared_stays_where_it_is(folder: Path) -> None:
    packed = pack_study(study_in(folder), shared=[str(folder)])
    assert packed.inputs == {}
    assert yaml.safe_load(packed.text)["model"]["path"] == str(folder / "tiny-llama-0")


def test_too_much_to_take_along_is_refused_with_path_and_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "TRAVEL_LIMIT", 50 * 1024)
    with pytest.raises(UserError) as caught:
        pack_study(study_in(folder))
    text = str(caught.value)
    assert f"model.path {folder}/tiny-llama-0 (" in text and "KiB" in text
    assert "storage that every node sees" in text and f"--shared {folder}/tiny-llama-0" in text


@pytest.mark.parametrize("results", [None, "results", "~/results"])
def test_results_that_would_end_with_the_job_are_refused(folder: Path, results: str | None) -> None:
    path = study_in(folder, storage={"results": results})
    with pytest.raises(UserError, match=r"is lost when the job ends.*--results"):
        pack_study(path)
    assert pack_study(path, "s3://bucket/small").results == "s3://bucket/small"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"storage": {"results": RESULTS, "database": "sqlite:///study.db"}}, "storage.database"),
        ({"prefix_cache": {"folder": "cache"}}, "prefix_cache.folder"),
    ],
)
def test_a_job_s_own_folder_is_no_place_to_keep_things(
    folder: Path, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        pack_study(study_in(folder, **changed))


@pytest.mark.parametrize(
    "database",
    [
        "postgresql://me:hunter2@db/s", "postgresql://db/s?password=hunter2",
        "postgresql://me:hun/hunter2@db/s", "postgresql://me:my hunter2@db/s",
        "postgresql://db/s?pass%77ord=hunter2",
    ],
)  # fmt: skip
def test_a_password_is_refused_and_not_repeated(folder: Path, database: str) -> None:
    path = study_in(folder, storage={"results": RESULTS, "database": database})
    with pytest.raises(UserError, match=r"storage\.database has a password.*PGPASSWORD") as caught:
        pack_study(path)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UserError, match=r"storage\.results has a password") as caught:
        pack_study(study_in(folder), "s3://ID:hunter2@bucket/small")
    assert "hunter2" not in str(caught.value)


def test_hidden_files_stay_at_home(folder: Path) -> None:
    (folder / "tiny-llama-0" / ".git").mkdir()
    (folder / "tiny-llama-0" / ".git" / "config").write_text("secret")
    assert not any(".git" in name for name in pack_study(study_in(folder)).inputs)
