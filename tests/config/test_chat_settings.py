"""`data.loss_on` and `data.chat_date`: where they may stand, and that a final run keeps the day."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from study.basics.errors import ConfigError
from study.config.load import parse_config
from study.orchestration.prepare import prepare_study
from study.reuse import best_configuration
from study.reuse.recipe import read_recipe
from tests.helpers.best_files import written
from tests.helpers.chat_templates import LLAMA_3, chat_tokenizer
from tests.helpers.data import study_config, task_rows, write_jsonl
from tests.helpers.models import tiny_model, tiny_model_folder
from tests.helpers.results import make_results

MINIMAL = """
name: tiny
model: {path: org/model}
data: {train: org/data, %s}
dataset_sizes: 64
arms: full
"""


@pytest.mark.parametrize("day", ["2026-01-31", "'2026-01-31'"])
def test_chat_settings_are_read(day: str) -> None:
    text = MINIMAL % f"messages: messages, loss_on: all, chat_date: {day}"
    data = parse_config(text).data
    assert (data.loss_on, data.chat_date) == ("all", "2026-01-31")


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ("text: text, loss_on: all", "data.loss_on", "has no effect without `messages`"),
        ("text: text, chat_date: '2026-01-31'", "data.chat_date", "no effect without `messages`"),
        ("messages: m, loss_on: first", "data.loss_on", "last"),
        ("messages: m, chat_date: '2026-02-31'", "data.chat_date", "is no date"),
        ("messages: m, chat_date: today", "data.chat_date", "today"),
    ],
)
def test_chat_settings_that_mean_nothing(settings: str, key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL % settings)
    assert key in str(caught.value) and said in str(caught.value)


def test_a_study_goes_on_with_the_day_on_record_and_says_what_was_trimmed(tmp_path: Path) -> None:
    tokenizer, model = chat_tokenizer(LLAMA_3), tiny_model()
    model.resize_token_embeddings(len(tokenizer))
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "model")
    asked = {"role": "user", "content": "Say it"}
    rows = [
        {"messages": [asked, {"role": "assistant", "content": f"It is {i}. "}]} for i in range(20)
    ]
    config = study_config(
        {"train": str(write_jsonl(tmp_path / "a.jsonl", rows)), "messages": "messages"},
        sequence_length=128,
        model={"path": str(tmp_path / "model")},
        storage={"results": str(tmp_path / "results")},
    )
    first = prepare_study(config)
    assert any("20 of 20 conversations the chat template changes" in w for w in first.warnings)
    on_record = dataclasses.replace(first.data, chat_date="2024-02-09")
    again = prepare_study(config, known_data=on_record)
    assert again.data.chat_date == "2024-02-09" != first.data.chat_date
    assert again.data.fingerprint != first.data.fingerprint


def test_a_final_run_prints_the_day_of_its_study(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path)
    train = write_jsonl(tmp_path / "task.jsonl", task_rows(60))
    results = make_results(
        model={"path": str(model)}, data={"train": str(train), "messages": "messages"}
    )
    assert results.data is not None
    for day in ("2024-02-09", None):
        on_record = dataclasses.replace(results.data, chat_date=day)
        chosen = best_configuration(dataclasses.replace(results, data=on_record), "full", 128)
        path = tmp_path / "best.yaml"
        path.write_text(written(chosen))
        assert read_recipe(path).config.data.chat_date == day
