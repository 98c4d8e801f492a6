"""Every wrong input gives one line that says what, where, and how to mend it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from study.basics.errors import DataError
from study.config.sources import find_source
from study.training.data.prepare import prepare_data
from study.training.data.readers import read_table
from study.training.data.tokenised import StudyData
from tests.helpers.data import (
    labelled_rows,
    study_config,
    task_rows,
    text_rows,
    write_csv,
    write_jsonl,
    write_parquet,
)
from tests.helpers.models import tiny_tokenizer

ROOT = Path(__file__).parents[3]
GOOD = "".join(json.dumps(row) + "\n" for row in task_rows(20))
TEMPLATES = {"prompt": "{question}\n", "response": "{answer}"}


def message(folder: Path, data: dict[str, Any], **options: Any) -> str:
    """The message of the DataError that preparing the data raises; one line, nothing left."""
    with pytest.raises(DataError) as caught:
        prepare_data(study_config(data, **options), folder / "data", tiny_tokenizer())
    assert "\n" not in str(caught.value)
    leftovers = list((folder / "data").glob("*")) if (folder / "data").exists() else []
    assert [p.name for p in leftovers if p.name != ".lock"] == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", "{file} is empty. Give a file with examples.", id="empty"),
        pytest.param(
            GOOD + '{"question": "x", "answer": oops}\n',
            "{file}, line 21: not valid JSON (Expecting value, column 29). Write one JSON object",
            id="malformed line",
        ),
        pytest.param(
            '"just a string"\n', "{file}, line 1: str instead of an object.", id="not an object"
        ),
        pytest.param(
            GOOD + '{"question": "x", "answer": null}\n',
            "{file}, row 21: column 'answer' holds no value, not text. Correct or remove the row.",
            id="null",
        ),
        pytest.param(
            GOOD + '{"question": "x"}\n',
            "{file}, row 21: column 'answer' holds no value, not text.",
            id="key missing in one row",
        ),
        pytest.param(
            GOOD + '{"question": "x", "answer": ["a", "b"]}\n',
            "{file}, row 21: column 'answer' holds ['a', 'b'] (list), not text.",
            id="list instead of text",
        ),
        pytest.param(
            '{"question": "x", "anwser": "y"}\n' * 9,
            "data.response: {file} has no column 'answer'. Did you mean 'anwser'? "
            "Columns: question, anwser.",
            id="column missing",
        ),
        pytest.param(
            '{"question": "x", "answer": " "}\n' * 9,
            "no example is left of {file}: of 9 rows 9 have no target",
            id="only empty responses",
        ),
        pytest.param(
            '{"question": "x", "answer": "y"}\n' * 9,
            "1 example of {file} leaves none for training once test (1) and validation (1) are",
            id="one example nine times",
        ),
        pytest.param("\n\n", "{file} has no rows. Give a file", id="blank lines only"),
    ],
)
def test_a_bad_jsonl_file(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(content)
    said = message(tmp_path, {"train": str(file), **TEMPLATES})
    assert expected.format(file=file) in said
    assert said.startswith("data.")


def test_the_row_is_counted_inside_its_own_file(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / f"{i}.jsonl", task_rows(10, 10 * i)) for i in range(3)]
    rows = [*task_rows(4, 50), {"question": "x", "answer": None}]
    write_jsonl(files[1], rows)
    said = message(tmp_path, {"train": [str(f) for f in files], **TEMPLATES})
    assert f"data.train: {files[1]}, row 5: column 'answer' holds no value" in said


@pytest.mark.parametrize(
    "content",
    [
        b"I loved it,1\nIt was bad,0\n",
        b"good,positive\nnice,positive\nawful,negative\n",
        b"this is what some person said,x\nand what another one did,y\n",
        b"Good film.,Yes.\nBad film.,No.\n",
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_file_without_a_header_line_is_told_to_add_one(
    name: str, content: bytes, tmp_path: Path
) -> None:
    if name.endswith(".tsv"):
        content = content.replace(b",", b"\t")
    (tmp_path / name).write_bytes(content)
    said = message(tmp_path, {"train": str(tmp_path / name), "text": "text"})
    assert f"{name} has no column 'text'" in said
    assert "add a header line" in said.lower() and "Columns:" not in said


def test_a_header_line_that_names_columns_twice_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"text,text\na,b\n")
    said = message(tmp_path, {"train": str(file), "text": "text"})
    assert "its header line names 'text' more than once" in said
    file.write_bytes(b"\n\n")
    assert "has no rows" in message(tmp_path, {"train": str(file), "text": "text"})


def test_a_gigabyte_of_null_characters_is_refused_at_its_first(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json", "a.csv", "a.txt"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**30)
        began = time.monotonic()
        said = message(tmp_path, {"train": str(tmp_path / name), "text": "text"})
        assert f"{name}, line 1: holds a null character" in said
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"question": ' + "[" * 61 + "]" * 61 + "}", ", row 21: column 'answer' holds no value"),
        # Arrow's own reader dies of these.
        ('{"text": ' + "[" * 100_000, ", line 21: nested too deeply to be data"),
        ('{"text": ' * 100_000, ", line 21: nested too deeply to be data"),
        ('{"text": "' + '[\\"' * 1_000_000, ", line 21: not valid JSON"),
        ('{"n": ' + "9" * 5000 + "}\noops", ", line 21: an integer of thousands of digits"),
    ],
)
def test_a_line_that_would_hang_or_kill_its_reader(
    line: str, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(GOOD + line + "\n")
    assert f"{file}{expected}" in message(tmp_path, {"train": str(file), **TEMPLATES})


def test_brackets_in_a_text_are_no_nesting(tmp_path: Path) -> None:
    rows = task_rows(20)
    rows[3]["question"] = "[{" * 1000 + '"\\'
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    table = read_table(find_source("data.train", str(file), ()), None)
    assert len(list(table.rows(["question"]))) == 20


def test_a_parquet_file_whose_texts_are_not_utf8(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    texts = pyarrow.array([b"good", b"b\xff"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    said = message(tmp_path, {"train": str(tmp_path / "a.parquet"), "text": "text"})
    assert "holds a text that is not UTF-8" in said


def test_bytes_that_are_no_text_or_no_parquet(tmp_path: Path) -> None:
    for name, content, expected in (
        ("a.jsonl", b"\xffbad", ", line 1: byte 0xff is not UTF-8 text. Save the file as UTF-8"),
        ("a.csv", b"question,answer\n\xff\xfe,y\n", ", line 2: byte 0xff is not UTF-8 text"),
        ("a.parquet", b"no parquet here", " cannot be read as Parquet"),
        ("a.arrow", b"no arrow here", " cannot be read as Arrow"),
        ("a.jsonl.gz", gzip.compress(GOOD.encode())[:-9], " is a damaged archive"),
        ("a.json", b'[{"question": "x", ', ", line 1: not valid JSON"),
        ("a.json", b'[{"question": "x", "answer": "y"}', ", line 1: not valid JSON (Expecting ','"),
        ("a.json", b'{"question": "x"} x', ", line 1: not valid JSON"),
        ("b.json", b'[{"question": "x", "answer": "y"}] x', ": its array does not end where"),
        ("c.json", b"[1, 2]", ", row 1: int instead of an object"),
        ("a.tsv", b"question\tanswer\nx\n", ", line 2: 1 fields, but the header line names 2"),
    ):
        (tmp_path / name).write_bytes(content)
        said = message(tmp_path, {"train": str(tmp_path / name), **TEMPLATES})
        assert f"data.train: {tmp_path / name}{expected}" in said


def test_a_csv_row_with_too_many_fields_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("question,answer\na,b\nc,d,e,f\n")
    said = message(tmp_path, {"train": str(file), **TEMPLATES})
    assert "line 3: 4 fields, but the header line names 2" in said
    file.write_text("question,answer\n")
    assert "has no rows" in message(tmp_path, {"train": str(file), **TEMPLATES})


def test_a_path_that_does_not_exist_names_its_nearest_neighbour(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", task_rows(9))
    said = message(tmp_path, {"train": str(tmp_path / "trian.jsonl"), **TEMPLATES})
    assert f"trian.jsonl does not exist. Did you mean {tmp_path / 'train.jsonl'}?" in said
    said = message(tmp_path, {"train": str(tmp_path / "no" / "a.jsonl"), **TEMPLATES})
    assert f"Its folder {tmp_path / 'no'} does not exist either" in said
    said = message(tmp_path, {"train": str(tmp_path / "*.csv"), **TEMPLATES})
    assert "no file matches" in said
    (tmp_path / "a.docx").write_text("x")
    said = message(tmp_path, {"train": str(tmp_path / "a.docx"), **TEMPLATES})
    assert "unknown format '.docx'. Supported: .jsonl" in said
    (tmp_path / "void").mkdir()
    assert "holds no data file" in message(tmp_path, {"train": str(tmp_path / "void")})
    assert "the list is empty" in message(tmp_path, {"train": []})


def test_hub_ids_and_mistyped_paths_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for hub_id in ("imdb", "tatsu-lab/alpaca"):
        assert find_source("data.train", hub_id, ("train",)).hub == hub_id
    for path in ("data/train", "imdb.csv", "./imdb", "/imdb"):
        with pytest.raises(DataError, match="does not exist"):
            find_source("data.train", path, ("train",))


def test_an_unreachable_hub_says_to_use_a_local_path(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from study.basics.errors import DataError\n"
        "from study.training.data.readers import read_table\n"
        "from study.config.sources import find_source\n"
        "source = find_source('data.train', 'nobody/nothing', ('train',))\n"
        "try: read_table(source, None)\n"
        "except DataError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == (
        "data.train: nobody/nothing is neither a local path nor reachable on the Hugging Face "
        "hub. Check the spelling, or give the path of a local file.\n"
    )


def fake_hub(monkeypatch: pytest.MonkeyPatch, splits: Sequence[str]) -> None:
    """A hub whose every dataset has these splits and the configurations `a` and `b`; it raises
    what datasets 5.2 raises."""
    import datasets

    def load_dataset(path: str, name: str | None, split: str) -> datasets.Dataset:
        if name is None:
            raise ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']")
        if split not in splits:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
        return datasets.Dataset.from_dict({"text": [f"{name} {split} {i}" for i in range(3)]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_a_hub_dataset_is_read_by_subset_and_first_fitting_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub(monkeypatch, ["train", "validation"])
    source = find_source("data.validation", "some/set", ("dev", "validation", "test"))
    assert list(read_table(source, "a").rows(["text"])) == [
        (f"some/set, row {i + 1}", {"text": f"a validation {i}"}) for i in range(3)
    ]
    with pytest.raises(DataError, match=r"split test\) cannot be read: Unknown split \"test\""):
        read_table(find_source("data.test", "some/set", ("test",)), "a")
    with pytest.raises(DataError, match=r"pick one among: \['a', 'b'\] Set data.subset"):
        read_table(source, None)


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ({"prompt": "{question", "response": "{answer}"}, "data.prompt: '{question' is not a"),
        ({"prompt": "{}", "response": "{answer}"}, "may only hold plain column names"),
        ({"prompt": "{question!r}", "response": "{answer}"}, "may only hold plain column names"),
        ({"prompt": "{question:>9}", "response": "{answer}"}, "may only hold plain column names"),
        (
            {"prompt": "{question.__class__}", "response": "{answer}"},
            "has no column 'question.__class__'. Did you mean 'question'?",
        ),
        ({"prompt": "question", "response": "{answer}"}, 'in braces, e.g. "{question}"'),
        ({"prompt": "{question}", "response": "answer"}, 'in braces, e.g. "{answer}"'),
        ({"prompt": "{question}", "response": "yes"}, "nothing that could be learned"),
        ({"prompt": "{question}"}, "data.response: missing, though data.prompt is given"),
        ({"text": "txt"}, "data.text: {file} has no column 'txt'."),
        ({"messages": "messages"}, "has no chat template"),
    ],
)
def test_a_template_that_cannot_be_filled(
    tmp_path: Path, templates: dict[str, str], expected: str
) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", task_rows(20))
    said = message(tmp_path, {"train": str(file), **templates})
    assert expected.replace("{file}", str(file)) in said


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hello", "holds 'hello' (str), not a list of messages"),
        ([], "holds no message. Remove the row."),
        ([{"speaker": "human", "text": "x"}], 'A message is {"role": "user", "content": "..."}'),
        ([{"role": "user", "content": "x"}], "has no assistant message"),
        ([{"role": "assistant", "content": "x"}], "the chat template refuses the messages"),
    ],
)
def test_a_conversation_that_cannot_be_used(tmp_path: Path, value: Any, expected: str) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", [{"messages": value}])
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('users begin') }}{% endif %}"
    )
    config = study_config({"train": str(file), "messages": "messages"})
    with pytest.raises(DataError) as caught:
        prepare_data(config, tmp_path / "data", tokenizer)
    assert str(caught.value).startswith(f"data.train: {file}, row 1: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "data", "expected"),
    [
        (labelled_rows(30), {}, "data.label: missing"),
        (labelled_rows(30), {"label": "knd"}, "no column 'knd'. Did you mean 'kind'?"),
        (labelled_rows(30), {"label": "text"}, "is data.text as well"),
        (
            [{"text": f"t {i}", "kind": "same"} for i in range(30)],
            {"label": "kind"},
            "have the label 'same' in column 'kind', so there is nothing to learn",
        ),
        (
            [{"text": f"t {i}", "kind": i % 2 or None} for i in range(30)],
            {"label": "kind"},
            "row 1: column 'kind' (data.label) holds no value, not a class",
        ),
        (
            [{"text": f"t {i}", "kind": i % 2 - 1} for i in range(30)],
            {"label": "kind"},
            "row 1 has the label -1",
        ),
        (
            [{"text": f"t {i}", "kind": i % 2 * 5000} for i in range(30)],
            {"label": "kind"},
            "2 labels, but the largest is 5000",
        ),
        (
            [{"text": i, "kind": i % 2} for i in range(30)],
            {"label": "kind"},
            "row 1: column 'text' holds 0 (int), not text",
        ),
    ],
)
def test_labels_that_cannot_be_learned(
    tmp_path: Path, rows: list[dict], data: dict[str, str], expected: str
) -> None:
    file = write_parquet(tmp_path / "a.parquet", rows)
    said = message(tmp_path, {"train": str(file), **data}, task="sequence-classification")
    assert expected in said


def test_a_csv_without_labels_in_some_rows(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "kind": "" if i == 7 else "ab"[i % 2]} for i in range(30)]
    file = write_csv(tmp_path / "a.csv", rows)
    data = {"train": str(file), "label": "kind"}
    said = message(tmp_path, data, task="sequence-classification")
    assert f"{file}, row 8: column 'kind' (data.label) holds '' (str), not a class" in said


def test_splits_that_leave_nothing(tmp_path: Path) -> None:
    file = str(write_jsonl(tmp_path / "train.jsonl", text_rows(20)))
    said = message(tmp_path, {"train": file, "test_size": 15, "validation_size": 5})
    assert "20 examples" in said and "test (15) and validation (5)" in said
    assert "lower data.test_size and data.validation_size" in said
    said = message(tmp_path, {"train": file, "test": file})
    assert "data.train: no example is left" in said
    assert "20 repeat examples of another split" in said
    said = message(tmp_path, {"train": file, "retention": file})
    assert "data.retention: no example is left" in said


def test_opening_a_folder_without_data_or_with_damaged_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenised data here"):
        StudyData.open(tmp_path)
    file = write_jsonl(tmp_path / "train.jsonl", text_rows(30))
    found = prepare_data(study_config({"train": str(file)}), tmp_path / "data", tiny_tokenizer())
    array = next((tmp_path / "data").glob("*/pool.tokens.npy"))
    content = array.read_bytes()
    for damaged in (content[:-40], b""):
        array.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged .* Delete this folder"):
            StudyData.open(tmp_path / "data", found.fingerprint)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", text_rows(30))
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"cannot be written .* Set storage.results"):
        prepare_data(study_config({"train": str(file)}), tmp_path / "taken", tiny_tokenizer())
