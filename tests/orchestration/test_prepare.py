"""What is refused before a study runs, so that no worker meets it first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from study.basics.errors import ModelError
from study.config.load import StudyConfig
from study.orchestration.prepare import prepare_study
from tests.helpers.data import Row, text_rows, write_jsonl
from tests.helpers.models import tiny_model_folder, tiny_tokenizer


def study_of(model: Path, folder: Path, rows: Sequence[Row]) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "small",
            "model": {"path": str(model)},
            "data": {"train": str(write_jsonl(folder / "t.jsonl", rows))},
            "dataset_sizes": [8],
            "arms": ["full"],
            "storage": {"results": str(folder / "results")},
        }
    )


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["number"])
    tokenizer.save_pretrained(folder)
    config = study_of(folder, tmp_path, text_rows(30))
    with pytest.raises(ModelError, match="the data has token id 261, the model only 261 ids"):
        prepare_study(config)


def test_examples_beyond_a_table_of_positions_are_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, "gpt2")
    config = study_of(folder, tmp_path, [{"text": f"{i} " * 100} for i in range(30)])
    with pytest.raises(ModelError, match=r"longest example has \d+ tokens, and .* made for 128\."):
        prepare_study(config)
