"""Conversations, and texts with marks of their own, from file to arrays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from study.training.data.batches import collate
from study.training.data.chat_template import today_of
from study.training.data.prepare import prepare_data
from study.training.data.tokenised import StudyData, TokenisedSplit
from tests.helpers import chat_templates
from tests.helpers.chat_templates import chat_tokenizer
from tests.helpers.data import study_config, task_rows, write_jsonl, write_parquet
from tests.helpers.models import tiny_tokenizer

TASK = {"prompt": "{question}\n", "response": "{answer}"}


def prepare(
    folder: Path, data: dict[str, Any], tokenizer: PreTrainedTokenizerBase, length: int = 256
) -> StudyData:
    config = study_config(data, sequence_length=length)
    found = prepare_data(config, folder / "data", tokenizer)
    return StudyData.open(folder / "data", found.fingerprint)


def texts(split: TokenisedSplit, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [tokenizer.decode(split.input_ids(i)) for i in range(len(split))]


def conversations(count: int) -> list[dict]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Question {i}"},
                {"role": "assistant", "content": "Which?", "weight": i % 2},
                {"role": "user", "content": "That."},
                {"role": "assistant", "content": f"Answer {i}" if i % 5 else ""},
            ]
        }
        for i in range(count)
    ]


def test_loss_in_several_places_is_kept_and_read_back(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(chat_templates.CHATML)
    rows = conversations(40)
    # The same tokens are no duplicate where the loss is elsewhere.
    rows += [{"messages": [{**m, "weight": 1} for m in row["messages"]]} for row in rows[2:5:2]]
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    data = prepare(tmp_path, {"train": train, "messages": "messages"}, tokenizer)
    summary = data.summary
    assert summary.dropped == {"empty answer": 4} and summary.empty_removed == 4
    assert summary.duplicates_removed == 0
    assert summary.pool + summary.validation + summary.test == 38
    for split in (data.pool, data.validation, data.test):
        for i in range(len(split)):
            labels = split.labels(i)
            has_loss = labels != -100
            assert split.target_counts[i] == has_loss.sum()
            parts = split.parts(i)
            assert np.concatenate([ids for ids, _ in parts]).tolist() == split.input_ids(i).tolist()
            learned = [tokenizer.decode(ids) for ids, counts in parts if counts]
            assert tokenizer.decode(labels[has_loss]) == "".join(learned)
            assert {text.split()[0].split("<")[0] for text in learned} <= {"Which?", "Answer"}
    batch = collate(data.pool, [0, 1, 2], data.pad_token_id)
    assert (batch["labels"] != -100).sum(dim=1).tolist() == data.pool.target_counts[:3].tolist()


def test_keys_that_only_other_rows_have_do_not_reach_the_template(tmp_path: Path) -> None:
    arguments = [{"dish": "soup", "vegan": True}, {"minutes": 5}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"request {i}"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "type": "function",
                            "function": {"name": "f", "arguments": arguments[i % 2]},
                        }
                    ],
                },
            ]
        }
        for i in range(20)
    ]
    tokenizer = chat_tokenizer(chat_templates.CHATML)
    found = {}
    for file in (
        write_jsonl(tmp_path / "a.jsonl", rows),
        write_parquet(tmp_path / "a.parquet", rows),
    ):
        given = {"train": str(file), "messages": "messages"}
        data = prepare(tmp_path / file.suffix, given, tokenizer)
        found[file.suffix] = texts(data.pool, tokenizer)
    calls = [
        f'<tool_call>{{"name": "f", "arguments": {json.dumps(a)}}}</tool_call>' for a in arguments
    ]
    assert all(any(call in text for call in calls) for text in found[".parquet"])
    assert found[".parquet"] == found[".jsonl"]


def test_the_day_that_a_chat_template_prints_stays_the_same(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(chat_templates.LLAMA_3)
    train = str(write_jsonl(tmp_path / "train.jsonl", conversations(20)))
    given = {"train": train, "messages": "messages"}
    config = study_config(given, sequence_length=256)
    today = prepare_data(config, tmp_path / "a", tokenizer)
    assert today.chat_date == today_of(tokenizer)
    for day in ("2024-02-09", "2024-02-10"):
        known = replace(today, chat_date=day)
        summary = prepare_data(config, tmp_path / "b", tokenizer, known=known)
        assert summary.chat_date == day
        expected = f"Today Date: {int(day[-2:]):02d} Feb 2024"
        pool = StudyData.open(tmp_path / "b", summary.fingerprint).pool
        assert all(expected in text for text in texts(pool, tokenizer))
    assert summary.fingerprint != today.fingerprint
    named = study_config({**given, "chat_date": "2024-02-09"}, sequence_length=256)
    known = replace(today, chat_date="2030-01-01")
    again = prepare_data(named, tmp_path / "c", tokenizer, known=known)
    assert again.chat_date == "2024-02-09"
    plain = chat_tokenizer(chat_templates.CHATML)
    assert prepare_data(named, tmp_path / "d", plain).chat_date is None


def test_what_was_cut_and_what_never_ends_is_said(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(chat_templates.NO_END)
    rows = conversations(19)[1:5]
    asked = {"role": "user", "content": "x"}
    rows += [
        {"messages": [asked, {"role": "assistant", "content": f"{n}" + "y" * 60}]}
        for n in range(30)
    ]
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    given = {"train": train, "messages": "messages", "validation_size": 2, "test_size": 2}
    summary = prepare_data(study_config(given), tmp_path / "data", tokenizer)
    answers = summary.cut["answer"]
    assert 20 < answers == summary.truncated and summary.end_token_ids == ()
    assert any("longer than training.sequence_length leaves room for" in n for n in summary.notes)
    assert any("may not know when to stop" in note for note in summary.notes)


def test_start_and_end_tokens_that_a_text_brings_are_not_added_again(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    rows = [{"q": f"shelf {i}?", "a": f"Shelf {i}", "t": f"<s>shelf {i}</s>\n"} for i in range(30)]
    rows.append({"q": "shelf?", "a": " ", "t": "<s>shelf</s>\n"})
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    for name, given in {
        "brought": {"prompt": "<s>[INST] {q} [/INST] ", "response": "{a}</s>"},
        "added": {"prompt": "[INST] {q} [/INST] ", "response": "{a}"},
        "text": {"text": "t"},
    }.items():
        data = prepare(tmp_path / name, {"train": train, **given}, tokenizer)
        for i in range(len(data.pool)):
            ids = data.pool.input_ids(i).tolist()
            assert ids[0] == 2 and ids.count(2) == 1 and ids.count(3) == 1
            assert tokenizer.decode(ids).endswith("</s>\n" if name == "text" else "</s>")
            assert data.pool.labels(i)[-1] != -100
        assert data.summary.end_token_ids == (3,)
        assert data.summary.dropped == ({} if name == "text" else {"empty answer": 1})


def test_an_end_token_that_is_also_the_padding_carries_loss(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    train = str(write_jsonl(tmp_path / "train.jsonl", task_rows(30)))
    data = prepare(tmp_path, {"train": train, **TASK}, tokenizer)
    assert data.pad_token_id == 3
    batch = collate(data.pool, range(4), data.pad_token_id)
    for row, labels in enumerate(batch["labels"]):
        last = int(data.pool.lengths[row]) - 1
        assert labels[last] == 3 and (labels[last + 1 :] == -100).all()
        assert batch["attention_mask"][row].sum() == last + 1
