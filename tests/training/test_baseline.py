"""The base model before any training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from study.basics.errors import ModelError
from study.training.baseline import measure_baseline
from study.training.data.prepare import prepare_data
from study.training.data.tokenised import StudyData
from study.training.model.load import load_tokenizer
from study.training.placement import Placement
from tests.helpers.data import study_config, text_rows, write_jsonl
from tests.helpers.models import tiny_model_folder


def test_weights_that_are_no_numbers_are_refused_before_any_trial(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    train = write_jsonl(tmp_path / "train.jsonl", text_rows(12))
    data = {"train": str(train), "text": "text", "validation_size": 2, "test_size": 2}
    config = study_config(data, model={"path": str(model)})
    prepare_data(config, tmp_path / "data", load_tokenizer(config.model))
    stored = StudyData.open(tmp_path / "data")
    with pytest.raises(ModelError, match="has a loss of nan before any training"):
        measure_baseline(config, stored, Placement(torch.device("cpu"), 0, 1))
