"""`data.loss_on` and `data.chat_date`: where they may stand, and that a final run keeps the day."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from study.config import parse_config
from study.errors import ConfigError
from study.recipe import read_recipe
from study.reuse import best_configuration
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
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
        path.write_text(chosen.to_yaml())
        assert read_recipe(path).config.data.chat_date == day
