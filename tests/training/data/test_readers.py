"""Texts arrive as their author wrote them, whatever the file."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from study.basics.errors import DataError
from study.config.sources import Source, find_source
from study.training.data.readers import read_table

QA = [{"question": f"Q {i}", "answer": f"A {i}"} for i in range(8)]


def read(path: Path, columns: Sequence[str], encoding: str | None = None) -> list[tuple[Any, ...]]:
    table = read_table(find_source("data.train", str(path), ("train",)), None, encoding)
    table.require(columns, "data.text")
    return [tuple(row.values()) for _, row in table.rows(columns)]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_jsonl(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_numbers_keep_the_text_of_the_file(tmp_path: Path) -> None:
    numbers = ["2", "0.5", "1.50", "1e-05", "0.00001", "1E+3", "-0.0", "12345678901234567890123"]
    lines = "".join(f'{{"answer": {number}, "when": "1910-03-01"}}\n' for number in numbers)
    rows = read(written(tmp_path / "a.jsonl", lines), ["answer", "when"])
    assert [str(answer) for answer, _ in rows] == numbers
    assert {when for _, when in rows} == {"1910-03-01"}
    assert [float(answer) for answer, _ in rows] == [float(number) for number in numbers]


def test_only_the_columns_asked_for_are_looked_at(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"t {i}", "note": None} for i in range(3000)]
    rows += [{"text": "late", "note": "words", "id": 1}, {"text": "x", "note": [1], "id": "one"}]
    assert read(written(tmp_path / "a.jsonl", as_jsonl(rows)), ["text"])[-2:] == [("late",), ("x",)]
    # A column that none of the first rows has.
    assert read(tmp_path / "a.jsonl", ["id"])[-2:] == [(1,), ("one",)]


@pytest.mark.parametrize(
    "document",
    [
        json.dumps(QA),
        json.dumps(QA, indent=2),
        as_jsonl(QA),
        "\n".join(json.dumps(row, indent=1) for row in QA),
        json.dumps({"version": 1, "data": QA}),
        json.dumps({key: [row[key] for row in QA] for key in QA[0]}),
    ],
    ids=["array", "indented", "lines", "indented objects", "under a key", "columns"],
)
def test_json_documents(tmp_path: Path, document: str) -> None:
    path = written(tmp_path / "a.json", document)
    assert read(path, ["question", "answer"]) == [tuple(row.values()) for row in QA]


@pytest.mark.parametrize(
    "document",
    [
        {"train": QA, "test": QA},
        {key: {str(i): row[key] for i, row in enumerate(QA)} for key in QA[0]},
        {"columns": ["question", "answer"], "index": [0], "data": [["a", "b"]]},
    ],
    ids=["splits", "columns of pandas", "split form of pandas"],
)
def test_a_json_object_that_is_no_rows_is_told_as_such(tmp_path: Path, document: Any) -> None:
    path = written(tmp_path / "a.json", json.dumps(document))
    with pytest.raises(DataError, match=r"is one object \(of .*\), not rows\. Write an array"):
        read(path, ["answer"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        ("PK\x03\x04...", "is a ZIP archive, or a workbook"),
    ],
)
def test_a_file_of_another_kind_is_told_as_such(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read(written(tmp_path / name, content), ["text"])


def test_an_array_called_jsonl_is_read_as_what_it_is(tmp_path: Path) -> None:
    assert len(read(written(tmp_path / "a.jsonl", json.dumps(QA)), ["answer"])) == len(QA)


def test_packed_files_and_byte_order_marks(tmp_path: Path) -> None:
    text = as_jsonl(QA)
    half = len(text) // 2
    with pyarrow.CompressedOutputStream(str(tmp_path / "packed"), "zstd") as stream:
        stream.write(text.encode())
    packed = {
        "a.jsonl.gz": gzip.compress(text.encode()),
        "members.jsonl.gz": gzip.compress(text[:half].encode())
        + gzip.compress(text[half:].encode()),
        "misnamed.jsonl": gzip.compress(text.encode()),
        "a.jsonl.bz2": bz2.compress(text.encode()),
        "a.jsonl.xz": lzma.compress(text.encode()),
        "a.jsonl.zst": (tmp_path / "packed").read_bytes(),
        "bom.jsonl": b"\xef\xbb\xbf" + text.encode(),
        "utf16.jsonl": text.encode("utf-16"),
        "crlf.jsonl": text.replace("\n", "\r\n").encode(),
    }
    for name, content in packed.items():
        rows = read(written(tmp_path / name, content), ["question", "answer"])
        assert rows == [tuple(row.values()) for row in QA], name


def test_characters_that_only_look_like_line_ends_stay(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\u2029d"
    row = json.dumps({"text": odd + "\0\x0b\x1c"}, ensure_ascii=False)
    path = written(tmp_path / "a.jsonl", row)
    assert read(path, ["text"]) == [(odd + "\0\x0b\x1c",)]
    odd += "\x0b\x1c\x0c"
    assert read(written(tmp_path / "a.txt", f"{odd}\nnext\r\nlast"), ["text"]) == [
        (odd,), ("next",), ("last",),
    ]  # fmt: skip
    assert read(written(tmp_path / "a.csv", f'text,n\n"{odd}\r\n",1\n'), ["text"]) == [
        (odd + "\r\n",)
    ]


def test_half_a_character_is_refused_with_its_row(tmp_path: Path) -> None:
    from study.training.data.templates import RawText, render_rows

    path = written(
        tmp_path / "a.jsonl", '{"text": "fine \\ud83d\\ude00"}\n{"text": "cut \\ud83d"}\n'
    )
    table = read_table(find_source("data.train", str(path), ()), None)
    with pytest.raises(DataError, match=r"a.jsonl, row 2: column 'text' holds half a character"):
        list(render_rows(RawText("text", "data.text"), table))


def test_a_huge_line_is_a_line(tmp_path: Path) -> None:
    text = "x" * 30_000_000
    assert read(written(tmp_path / "a.jsonl", as_jsonl([{"text": text}])), ["text"]) == [(text,)]


def test_a_named_encoding(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,n\ncaf\u00e9,1\n".encode("cp1252"))
    assert read(path, ["text"], "cp1252") == [("caf\u00e9",)]
    with pytest.raises(DataError, match="line 2: byte 0xe9 is not UTF-8 text"):
        read(path, ["text"])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_of_a_csv_is_found_out(tmp_path: Path, separator: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator)
    rows = [(f"with , and ; and | and {i}", 'say "x"\n' * (i % 2)) for i in range(60)]
    writer.writerows([("question", "answer"), *rows])
    assert read(written(tmp_path / "a.csv", stream.getvalue()), ["question", "answer"]) == rows


@pytest.mark.parametrize(
    "content",
    [
        "sep=|\nquestion|answer\na, b|c\nd|e\n",
        'question, answer\n"a, b", c\nd, "e"\n',
        '"question", "answer"\n"a, b", "c"\n"d", "e"\n',
    ],
    ids=["Excel's line", "blanks", "blanks before quotation marks"],
)
def test_a_csv_as_programs_write_it(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / "a.csv", content)
    assert read(path, ["question", "answer"]) == [("a, b", "c"), ("d", "e")]


def test_a_tsv_that_is_none_is_told_as_such(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "question,answer\na,b\n")
    with pytest.raises(DataError, match=r"separated by ',', not by '\\t'\. Rename the file to"):
        read_table(Source("data.train", files=(path,)), None).require(["answer"], "data.response")


def test_a_nameless_index_column_is_one_that_nobody_asks_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ",question,answer\n0,a,b\n1,c,d\n")
    assert read(path, ["answer", "question"]) == [("b", "a"), ("d", "c")]
    # One more value than names: which is which, nobody can tell.
    path = written(tmp_path / "b.csv", "question,answer\n0,a,b\n1,c,d\n")
    with pytest.raises(DataError, match="line 2: 3 fields, but the header line names 2"):
        read(path, ["answer"])


def test_quotation_marks_after_a_backslash(tmp_path: Path) -> None:
    lines = ["question,answer"]
    lines += [rf'"Who said \"north, {i}\"?","C:\\dir said \"{i}\"."' for i in range(5)]
    path = written(tmp_path / "a.csv", "\n".join(lines))
    assert read(path, ["question", "answer"]) == [
        (f'Who said "north, {i}"?', f'C:\\dir said "{i}".') for i in range(5)
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a,b\n1,"two"s\n', "line 2: text follows the closing quotation mark"),
        ('a,b\n1,2\n3,"four\n5,6\n', "line 3: a quotation mark opens a field here that nothing"),
        ("a,b,a\n1,2,3\n", "its header line names 'a' more than once"),
    ],
)
def test_a_csv_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, content: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        read(written(tmp_path / "a.csv", content), ["a", "b"])


def test_a_tsv_quotes_nothing_unless_it_plainly_does(tmp_path: Path) -> None:
    prose = ['"opens a quotation', 'and ends it much later"', '"whole"']
    for number in (2, 3):
        rows = [f"{text}\t{i}" for i, text in enumerate(prose[:number])]
        path = written(tmp_path / "prose.tsv", "\n".join(["sentence\tlabel", *rows]))
        assert read(path, ["sentence"]) == [(text,) for text in prose[:number]]
    quoted = [("a\tb", "1"), ('say "x"', "2"), ("plain", "3"), ("two\nlines", "4")]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="\t", quoting=quoting)
        writer.writerows([("sentence", "label"), *quoted])
        path = written(tmp_path / "quoted.tsv", stream.getvalue())
        assert read(path, ["sentence", "label"]) == quoted


TYPED = {
    "large": pyarrow.array(["a", "b"], pyarrow.large_string()),
    "view": pyarrow.array(["a", "b"], pyarrow.string_view()),
    "dictionary": pyarrow.array(["a", "b"]).dictionary_encode(),
    "half": pyarrow.array([0.1, 2.0], pyarrow.float32()),
    "double": pyarrow.array([0.1, 2.0]),
    "price": pyarrow.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")]),
    "day": pyarrow.array([datetime.date(1910, 3, 1), datetime.date(2026, 1, 2)]),
    "moment": pyarrow.array([datetime.datetime(2026, 1, 2, 3, 4, 5)] * 2),
    "bytes": pyarrow.array([b"caf\xc3\xa9", b"b"]),
    "map": pyarrow.array([[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "messages": pyarrow.array(
        [[{"role": "user", "call": {"dish": "soup", "minutes": None}}], [{"call": {"minutes": 1}}]]
    ),
}
PLAIN: dict[str, list[Any]] = {
    "large": ["a", "b"],
    "view": ["a", "b"],
    "dictionary": ["a", "b"],
    "half": ["0.1", "2.0"],
    "double": ["0.1", "2.0"],
    "price": ["1.50", "2.00"],
    "day": ["1910-03-01", "2026-01-02"],
    "moment": ["2026-01-02 03:04:05"] * 2,
    "bytes": ["caf\u00e9", "b"],
    "map": [{"k": 1}, {}],
    "messages": [[{"role": "user", "call": {"dish": "soup"}}], [{"call": {"minutes": 1}}]],
}


@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file"])
def test_columns_of_every_type(tmp_path: Path, kind: str) -> None:
    table = pyarrow.table(TYPED)
    path = tmp_path / f"a.{kind.split()[0]}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        new = pyarrow.ipc.new_stream if kind.endswith("stream") else pyarrow.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    for column, expected in PLAIN.items():
        found = [value for (value,) in read(path, [column])]
        as_text = [str(v) if isinstance(v, float) else v for v in found]
        assert as_text == expected, column


def test_a_folder_of_save_to_disk_and_one_of_its_splits(tmp_path: Path) -> None:
    parts = {
        name: datasets.Dataset.from_list([{"text": f"{name} {i}"} for i in range(4)])
        for name in ("test", "train")
    }
    parts["train"].save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "dict"))
    expected = [(f"train {i}",) for i in range(4)]
    assert read(tmp_path / "one", ["text"]) == expected
    assert read(tmp_path / "dict", ["text"]) == expected
    assert read(tmp_path / "dict" / "train", ["text"]) == expected
    with pytest.raises(DataError, match=r"holds the splits test, train\. Name one, such as"):
        find_source("data.retention", str(tmp_path / "dict"), ("validation",))
