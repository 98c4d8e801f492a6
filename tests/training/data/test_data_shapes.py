"""Public shapes of data, contents invented: what is stored decodes to what a few lines of plain
Python and transformers make of the same file, the loss's place included."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from study.training.data.prepare import prepare_data
from study.training.data.tokenised import StudyData
from tests.helpers import chat_templates
from tests.helpers.chat_templates import chat_tokenizer
from tests.helpers.data import study_config

ROWS = 12
Told = tuple[str, str]
"""Context and target, or text and label."""


def alpaca(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [
        {"instruction": f"Sort {i}", "input": "b, a" if i % 2 else "-", "output": f"a, b {i}"}
        for i in range(ROWS)
    ]
    (folder / "alpaca.json").write_text(json.dumps(rows, indent=4))
    told = ((f"### {r['instruction']}\n{r['input']}\n", r["output"]) for r in rows)
    data = {"prompt": "### {instruction}\n{input}\n", "response": "{output}"}
    return {"train": str(folder / "alpaca.json"), **data}, told


def dolly(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [
        {"instruction": f"Why {i}?", "context": "", "response": f"So {i}", "category": "open_qa"}
        for i in range(ROWS)
    ]
    (folder / "dolly.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    told = ((f"{r['context']}{r['instruction']} ", r["response"]) for r in rows)
    data = {"prompt": "{context}{instruction} ", "response": "{response}"}
    return {"train": str(folder / "dolly.jsonl"), **data}, told


def chat(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Told:
    """What transformers' chat template puts before the last answer, and from there on."""
    tokenizer = chat_tokenizer(chat_templates.QWEN_2)
    options: dict[str, Any] = {"tokenize": False, "tools": tools}
    before = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **options)
    whole = tokenizer.apply_chat_template(messages, **options)
    assert whole.startswith(before)
    return before, whole[len(before) :]


def share_gpt(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [
        {
            "id": f"x{i}",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": f"Name {i}"},
                {"from": "gpt", "value": f"Number {i}"},
            ],
        }
        for i in range(ROWS)
    ]
    (folder / "share.json").write_text(json.dumps(rows))
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    told = (
        chat([{"role": roles[m["from"]], "content": m["value"]} for m in row["conversations"]])
        for row in rows
    )
    return {"train": str(folder / "share.json"), "messages": "conversations"}, told


def openai_tools(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    tools = [{"type": "function", "function": {"name": "timer", "parameters": {"type": "object"}}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{i} minutes"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {"type": "function", "function": {"name": "timer", "arguments": {"n": i}}}
                    ],
                },
            ],
            "tools": tools,
        }
        for i in range(ROWS)
    ]
    (folder / "tools.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    told = (chat(r["messages"], tools) for r in rows)  # type: ignore[arg-type]
    return {"train": str(folder / "tools.jsonl"), "messages": "messages"}, told


def ultra_chat(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [
        {
            "prompt": f"Tell {i}",
            "prompt_id": str(i),
            "messages": [
                {"content": f"Tell {i}", "role": "user"},
                {"content": f"Once {i}", "role": "assistant"},
                {"content": "More", "role": "user"},
                {"content": f"The end {i}", "role": "assistant"},
            ],
        }
        for i in range(ROWS)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "ultra.parquet")
    told = (chat(r["messages"]) for r in rows)  # type: ignore[arg-type]
    return {"train": str(folder / "ultra.parquet"), "messages": "messages"}, told


def glue_tsv(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [(f'"a "quoted" start {i}' if i % 3 else f"plain {i}", str(i % 2)) for i in range(ROWS)]
    text = "sentence\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows)
    (folder / "train.tsv").write_text(text)
    data = {"text": "sentence", "label": "label"}
    return {"train": str(folder / "train.tsv"), **data}, iter(rows)


def mnli(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    names = ["entailment", "neutral", "contradiction"]
    features = datasets.Features(
        {"premise": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    columns = {"premise": [f"It rains {i}" for i in range(ROWS)], "label": [*range(3)] * 4}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "mnli.parquet")
    told = ((f"It rains {i}", names[i % 3]) for i in range(ROWS))
    return {"train": str(folder / "mnli.parquet"), "text": "premise", "label": "label"}, told


def save_to_disk(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [{"question": f"q {i}", "answer": f"a {i}"} for i in range(ROWS)]
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "corpus"), num_shards=2)
    told = ((f"{r['question']} ", r["answer"]) for r in rows)
    data = {"prompt": "{question} ", "response": "{answer}"}
    return {"train": str(folder / "corpus"), **data}, told


def mysql_csv(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [(f'who said "{i}", then?', f"C:\\{i} did") for i in range(ROWS)]
    written = [
        ",".join('"' + f.replace("\\", "\\\\").replace('"', '\\"') + '"' for f in row)
        for row in [("question", "answer"), *rows]
    ]
    (folder / "dump.csv").write_text("\n".join(written) + "\n")
    data = {"prompt": "{question}|", "response": "{answer}"}
    return {"train": str(folder / "dump.csv"), **data}, ((f"{q}|", a) for q, a in rows)


def pandas_csv(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [(str(i), f'a "b", {i}\nnext', f"{i}.0") for i in range(ROWS)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([("", "text", "score"), *rows])
    (folder / "frame.csv").write_text(file.getvalue())
    data = {"prompt": "{text}=", "response": "{score}"}
    return {"train": str(folder / "frame.csv"), **data}, ((f"{t}=", s) for _, t, s in rows)


def parquet_structs(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"go {i}", "tool_calls": None},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"xy"[i % 2]: i}}}],
                },
            ]
        }
        for i in range(ROWS)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "structs.parquet")
    told = (chat(r["messages"]) for r in rows)  # type: ignore[arg-type]
    return {"train": str(folder / "structs.parquet"), "messages": "messages"}, told


def json_array(folder: Path) -> tuple[dict[str, Any], Iterator[Told]]:
    rows = [{"sum": f"{i} + 1", "is": i + 1 if i % 4 else i + 1.5} for i in range(ROWS)]
    (folder / "sums.json").write_text(json.dumps(rows))
    told = ((f"{r['sum']} = ", json.dumps(r["is"])) for r in rows)
    data = {"prompt": "{sum} = ", "response": "{is}"}
    return {"train": str(folder / "sums.json"), **data}, told


SHAPES: list[Callable[[Path], tuple[dict[str, Any], Iterator[Told]]]] = [
    alpaca, dolly, share_gpt, openai_tools, glue_tsv, mnli, ultra_chat, save_to_disk, mysql_csv,
    pandas_csv, parquet_structs, json_array,
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_stored_is_what_the_file_says(
    tmp_path: Path, shape: Callable[[Path], tuple[dict[str, Any], Iterator[Told]]]
) -> None:
    data, told = shape(tmp_path)
    task = "sequence-classification" if "label" in data else "causal-lm"
    tokenizer = chat_tokenizer(chat_templates.QWEN_2)
    config = study_config(
        {**data, "validation_size": 1, "test_size": 1}, task=task, sequence_length=1024
    )
    summary = prepare_data(config, tmp_path / "data", tokenizer)
    stored = StudyData.open(tmp_path / "data", summary.fingerprint)
    found = set()
    for split in (stored.pool, stored.validation, stored.test):
        for i in range(len(split)):
            if task == "causal-lm":
                pieces = [(tokenizer.decode(tokens), loss) for tokens, loss in split.parts(i)]
                assert [loss for _, loss in pieces] == [False, True]
                found.add((pieces[0][0], pieces[1][0]))
            else:
                text = tokenizer.decode(split.input_ids(i))
                found.add((text, summary.label_names[split.label(i)]))
    end = "" if "messages" in data or task != "causal-lm" else tokenizer.eos_token
    assert found == {(context, target + end) for context, target in told}
