"""Claims about the demo's task and general text, and about the shipped general prose."""

from __future__ import annotations

import ast
import json
from hashlib import sha256
from pathlib import Path

import pytest

import study.training.data
from study.basics.errors import UserError
from study.cli.examples.demo import text
from study.cli.examples.demo.text import TaskExample

SHIPPED_PROSE = Path(study.training.data.__path__[0]) / "general_text" / "general.jsonl"


@pytest.fixture(scope="module")
def examples() -> list[TaskExample]:
    return text.task_examples()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "files"
    text.write_demo_files(folder)
    return folder


def digest(content: str) -> str:
    return sha256(content.encode()).hexdigest()


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_there_are_enough_examples_for_a_study(examples: list[TaskExample]) -> None:
    assert len(examples) >= 2500


def test_no_prompt_and_no_response_occurs_twice(examples: list[TaskExample]) -> None:
    assert len({example["prompt"] for example in examples}) == len(examples)
    assert len({example["response"] for example in examples}) == len(examples)


def test_prompt_and_response_make_one_valid_function(examples: list[TaskExample]) -> None:
    for example in examples[::5]:
        (function,) = ast.parse(example["prompt"] + example["response"]).body
        assert isinstance(function, ast.FunctionDef)
        assert ast.get_docstring(function)
        assert len(function.body) >= 2


def test_examples_are_short_and_end_with_a_newline(examples: list[TaskExample]) -> None:
    for example in examples:
        assert 30 <= len(example["response"].strip()) <= 350
        assert example["prompt"].endswith('"""\n')
        assert example["response"].endswith("\n")
        assert not example["response"].endswith("\n\n")


def test_sources_are_sympy_modules_outside_its_tests(examples: list[TaskExample]) -> None:
    for example in examples:
        assert example["source"].startswith("sympy/")
        assert "tests" not in example["source"].split("/")


def test_order_mixes_the_subpackages(examples: list[TaskExample]) -> None:
    first = {example["source"].split("/")[1] for example in examples[:100]}
    assert len(first) >= 8


def test_written_task_is_the_same_on_every_run(folder: Path, examples: list[TaskExample]) -> None:
    assert rows_of(folder / text.TASK_FILE) == examples


def test_train_and_held_out_modules_are_disjoint_and_split_about_nine_to_one() -> None:
    train = {module for module, _ in text.stdlib_modules("train")}
    held_out = {module for module, _ in text.stdlib_modules("held-out")}
    assert train and held_out
    assert not train & held_out
    assert 0.05 < len(held_out) / len(train | held_out) < 0.15


def test_a_modules_split_depends_on_its_path_alone() -> None:
    # The shipped base model was trained on `train`: these may never change sides.
    assert text.split_of("modulefinder.py") == "held-out"
    assert text.split_of("urllib/error.py") == "held-out"
    assert text.split_of("ast.py") == "train"


def test_no_module_is_a_test() -> None:
    for split in ("train", "held-out"):
        for module, _ in text.stdlib_modules(split):
            assert not {"test", "tests", "site-packages"} & set(module.split("/"))


def test_general_chunks_are_unique_held_out_source(folder: Path) -> None:
    chunks = [row["text"] for row in rows_of(folder / text.GENERAL_FILE)]
    held_out = "\0".join(source for _, source in text.stdlib_modules("held-out"))
    assert 250 <= len(chunks) <= 300
    assert len(set(chunks)) == len(chunks)
    assert all(chunk in held_out for chunk in chunks)
    assert 500 < sum(map(len, chunks)) / len(chunks) < 700


def test_writing_again_leaves_the_files_alone(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    text.write_demo_files(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing file", "other version"])
def test_outdated_files_are_written_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example: TaskExample = {"prompt": "def f():\n", "response": "    return 1\n", "source": "m"}
    monkeypatch.setattr(text, "task_examples", lambda: [example])
    monkeypatch.setattr(text, "general_chunks", lambda: ["import os\n"])
    text.write_demo_files(tmp_path)
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    if damage == "missing file":
        (tmp_path / text.GENERAL_FILE).unlink()
    else:
        stamp = tmp_path / text.STAMP_FILE
        made_from = json.loads(stamp.read_text())
        stamp.write_text(json.dumps(made_from | {"sympy": "0.1", text.TASK_FILE: digest("{}\n")}))
        (tmp_path / text.TASK_FILE).write_text("{}\n")
    text.write_demo_files(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == fresh


def test_a_file_that_somebody_else_wrote_or_edited_stays(tmp_path: Path) -> None:
    (tmp_path / text.TASK_FILE).write_text("mine")
    with pytest.raises(UserError, match=r"task\.jsonl is not as the demo wrote it"):
        text.write_demo_files(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {text.TASK_FILE: "mine"}


def test_shipped_prose_is_many_unique_short_chunks() -> None:
    chunks = [row["text"] for row in rows_of(SHIPPED_PROSE)]
    assert len(chunks) >= 200
    assert len(set(chunks)) == len(chunks)
    assert all(400 <= len(chunk) <= 800 for chunk in chunks)
    assert SHIPPED_PROSE.stat().st_size < 300_000
    assert not any("gutenberg" in chunk.lower() for chunk in chunks)
