"""Wrong study files: each fault with its path, its line, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.basics.errors import ConfigError, Fault
from study.config.load import load_config, parse_config
from tests.helpers.wrong_studies import GOOD, LAST, WRONG, replaced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and data files that the good study file points at."""
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "train.jsonl").write_text('{"q": "1", "a": "2"}\n')
    return tmp_path


def faults_of(folder: Path, text: str) -> tuple[Fault, ...]:
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(folder / "study.yaml")
    assert caught.value.exit_code == 2
    return caught.value.faults


def test_the_good_file_is_good(folder: Path) -> None:
    (folder / "study.yaml").write_text(GOOD)
    assert load_config(folder / "study.yaml").name == "tiny"


def test_of_a_long_value_the_ends_are_shown() -> None:
    said = str(
        Fault("data.train", 3, f"/home/{'x' * 200}/train.jsonl", "no such file.", "Mend it.")
    )
    assert said.startswith("data.train (line 3): no such file. Found: '/home/xxx")
    assert said.endswith("xxx/train.jsonl'. Mend it.")
    assert len(said) == len("data.train (line 3): no such file. Found: . Mend it.") + 80


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_study_file_has_one_clear_fault(case: str, folder: Path) -> None:
    text, path, line, telling = WRONG[case]
    faults = faults_of(folder, text)
    path = path.replace("{file}", str(folder / "study.yaml"))
    assert [(fault.path, fault.line) for fault in faults] == [(path, line)], faults
    assert telling in str(faults[0])


def test_all_faults_of_a_file_come_at_once_in_the_order_of_its_lines(folder: Path) -> None:
    faults = faults_of(
        folder,
        GOOD.replace("./model", "./gone").replace('"{a}"', '"{a"')
        + "training: {epochs: 1, steps: 5, schedule: cosin, stteps: 1}\n"
        "search: {space: ./gone.yaml, trials: 0}\nzero: {overrides: {fp16: {}}}\n",
    )
    found = [(fault.path, fault.line) for fault in faults]
    assert [line for _, line in found] == sorted(line for _, line in found if line)
    assert {path for path, _ in found} == {
        "model.path", "data.response", "training.schedule", "training.stteps", "search.trials",
        "search.space", "zero.overrides.fp16",
    }  # fmt: skip


def test_what_follows_from_a_fault_is_not_reported_again(folder: Path) -> None:
    # `txet` was to be `text`: that no column is named needs no second message.
    text = replaced('  prompt: "{q}"\n  response: "{a}"\n', "  txet: body\n")
    assert [fault.path for fault in faults_of(folder, text)] == ["data.txet"]


def test_a_database_password_is_not_repeated(folder: Path) -> None:
    for url in ("mysql://me:hunter2@h/d", "me:hunter2@h"):
        (fault,) = faults_of(folder, GOOD + f"storage: {{database: '{url}'}}\n")
        assert "hunter2" not in str(fault)


@pytest.mark.parametrize(
    ("files", "telling"),
    [
        ({"model.safetensors": "x"}, "no config.json"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, "merge it"),
        ({"config.json": "{}", "pytorch_model.bin": "x"}, "save_pretrained"),
        ({"config.json": "{}", "tokenizer.json": "{}"}, "no weights"),
        ({"config.json": "{}", "model.safetensors": "x"}, "no tokenizer"),
        (
            {
                "config.json": "{}", "tokenizer.json": "{}", "model-1.safetensors": "x",
                "model.safetensors.index.json": json.dumps(
                    {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
                ),
            },
            "1 of 2 weight files are missing, e.g. model-2",
        ),
        (
            {
                "config.json": "{}", "tokenizer.json": "{}", "model-1.safetensors": "x",
                "model.safetensors.index.json": "{",
            },
            "cannot be read",
        ),
    ],
)  # fmt: skip
def test_an_unusable_model_folder_says_what_it_lacks(
    files: dict[str, str], telling: str, folder: Path
) -> None:
    (folder / "bad").mkdir()
    for name, text in files.items():
        (folder / "bad" / name).write_text(text)
    (fault,) = faults_of(folder, replaced("./model", "./bad"))
    assert (fault.path, fault.line) == ("model.path", 4)
    assert telling in str(fault)


def test_an_empty_data_file_is_a_fault(folder: Path) -> None:
    (folder / "void.csv").write_text("")
    (fault,) = faults_of(folder, replaced("./train.jsonl", "./void.csv"))
    assert "void.csv is empty" in str(fault)


def test_a_folder_without_data_files_is_a_fault(folder: Path) -> None:
    (folder / "void").mkdir()
    (fault,) = faults_of(folder, replaced("./train.jsonl", "./void"))
    assert "holds no data file" in str(fault)


def test_a_space_files_faults_have_its_name_and_its_lines(folder: Path) -> None:
    (folder / "mine.yaml").write_text("shared:\n  learning_rate: 0\n  warmup_ratio: 2\n")
    faults = faults_of(folder, GOOD + "search: {space: ./mine.yaml}\n")
    assert [(fault.path, fault.line) for fault in faults] == [
        ("./mine.yaml: shared.learning_rate", 2), ("./mine.yaml: shared.warmup_ratio", 3),
    ]  # fmt: skip


def test_a_space_that_lacks_a_parameter_is_the_studys_fault(folder: Path) -> None:
    faults = faults_of(folder, GOOD + "search:\n  space: {shared: {learning_rate: 1e-5}}\n")
    assert [(fault.path, fault.line) for fault in faults] == [("search.space", LAST + 2)] * 2
    assert "warmup_ratio" in str(faults[0]) and "max_grad_norm" in str(faults[1])


def test_a_study_file_that_is_no_text_is_a_fault(folder: Path) -> None:
    (folder / "study.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(folder / "study.yaml")
    with pytest.raises(ConfigError, match="folder"):
        load_config(folder)


KEYS = st.sampled_from([
    "name", "model", "data", "arms", "search", "zero", "training", "path", "train", "prompt",
    "response", "space", "overrides", "shared", "full", "lift", "learning_rate", "low", "high",
    "step", "choices", "stage", "betas", "dataset_sizes", "task", "storage", "database",
    "resources", "decision", "x",
])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 600) | st.floats() | st.text(max_size=5) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_no_study_file_makes_the_loader_itself_fail(
    folder: Path, changes: dict[str, Any], from_scratch: bool
) -> None:
    base: dict[str, Any] = {} if from_scratch else {
        "name": "tiny", "model": {"path": "./model"}, "data": {"train": "d", "text": "t"},
        "dataset_sizes": [64], "arms": ["full", "lift"],
    }  # fmt: skip
    try:
        config = parse_config({**base, **changes}, folder)
    except ConfigError as error:
        assert error.faults
        assert all(fault.path and fault.rule and str(fault) for fault in error.faults)
    else:
        assert config.arms.names and config.space().for_arm(config.arms.names[0])
