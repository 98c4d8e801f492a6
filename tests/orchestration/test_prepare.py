"""What is refused before a study runs, so that no worker meets it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.basics.errors import ModelError
from study.config.load import StudyConfig
from study.orchestration.prepare import prepare_study
from tests.helpers.data import text_rows, write_jsonl
from tests.helpers.models import tiny_model_folder, tiny_tokenizer


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["number"])
    tokenizer.save_pretrained(folder)
    config = StudyConfig.model_validate(
        {
            "name": "small",
            "model": {"path": str(folder)},
            "data": {"train": str(write_jsonl(tmp_path / "t.jsonl", text_rows(30)))},
            "dataset_sizes": [8],
            "arms": ["full"],
            "storage": {"results": str(tmp_path / "results")},
        }
    )
    with pytest.raises(ModelError, match="the data has token id 261, the model only 261 ids"):
        prepare_study(config)
