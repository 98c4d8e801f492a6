"""The card and the record of a trained model, read as the Hub reads them."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard

from study.reuse.model_card import model_card, record
from tests.helpers.final_runs import finished


def test_the_header_is_what_the_hub_reads() -> None:
    recipe, run = finished("Qwen/Qwen3-0.6B", test_metrics={"accuracy": 0.5})
    data = ModelCard(model_card(recipe, run)).data
    assert data.base_model == "Qwen/Qwen3-0.6B"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert "lift" in data.tags
    values = {r.metric_type: r.metric_value for r in data.eval_results}
    assert values == {"loss": pytest.approx(4.2), "accuracy": 0.5}
    assert data.model_name == "synthetic-lift"


def test_the_text_says_what_how_and_how_well() -> None:
    recipe, run = finished()
    text = model_card(recipe, run)
    for said in (
        "LIFT (layer-wise) on 128 examples",
        "| validation | 4.1000 | 4.6000 |",
        "| test | 4.2000 | 4.6300 |",
        "| general text | 3.9900 | 3.9400 |",
        "Chosen for 128 examples by study synthetic (basis: device_seconds)",
        "Picked among 3 replicate winners",
        "Verdict at",
        "1.23 M parameters",
        "device-hours",
        "torch 2.13.0",
        "| learning_rate |",
        "| sweeps | 1 |",
    ):
        assert said in text, said


def test_a_local_folder_is_not_given_away() -> None:
    recipe, run = finished("/home/someone/secret/models/tiny")
    assert "/home/someone" not in model_card(recipe, run)
    assert "`tiny`" in model_card(recipe, run)


def test_text_from_outside_stays_text() -> None:
    recipe, run = finished(notes=("<script>alert(1)</script> | `x`",))
    recipe.content["study"]["name"] = "a<b>|c"
    text = model_card(recipe, run)
    assert "<script>" not in text and "a<b>" not in text.split("---")[2]
    assert "&lt;script&gt;" in text


def test_other_data_than_the_studys_are_told() -> None:
    recipe, run = finished()
    assert "not those of the study" not in model_card(recipe, run)
    recipe.content["data"]["fingerprint"] = "another"
    assert "not those of the study" in model_card(recipe, run)


def test_the_record_gives_programs_everything() -> None:
    recipe, run = finished()
    found = json.loads(record(recipe, run))
    assert found["best_configuration"] == recipe.content
    assert found["outcome"]["test_loss"] == pytest.approx(4.2)
    assert "test_losses" not in found["outcome"]
    assert found["spec"]["hyperparameters"] == run.spec.hyperparameters
    assert len(found["measurements"]) == 5
