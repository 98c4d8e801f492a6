"""The card and the record of a trained model, read as the Hub reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from study.config.load import DataConfig
from study.reuse.best_file import Best
from study.reuse.model_card import model_card, record
from study.reuse.recipe import Recipe
from tests.helpers.final_runs import finished
from tests.helpers.models import tiny_model_folder


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


def base_of(path: str) -> str | None:
    data = ModelCard(model_card(*finished(path))).data
    assert data.base_model_relation == "finetune"
    return data.base_model  # type: ignore[no-any-return]


def test_a_local_folder_is_not_given_away() -> None:
    recipe, run = finished("/home/someone/secret/models/tiny")
    assert "/home/someone" not in model_card(recipe, run)
    assert "`tiny`" in model_card(recipe, run)
    assert base_of("/home/someone/secret/models/tiny") == "tiny"


def test_the_base_model_is_an_id_of_the_hub_or_reads_like_one(tmp_path: Path) -> None:
    cache = "/root/.cache/huggingface/hub"
    assert base_of(f"{cache}/models--Qwen--Qwen3-0.6B/snapshots/abc123") == "Qwen/Qwen3-0.6B"
    assert base_of(f"{cache}/models--gpt2/snapshots/abc123") == "gpt2"
    for known, name in (("org/base-1", "org/base-1"), ("/home/me/old", "mine"), (7, "mine")):
        folder = tmp_path / str(known).replace("/", "_") / "mine"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"_name_or_path": known}))
        assert base_of(str(folder)) == name
    assert base_of("/models/no repo name!") is None


def code_of(card: str) -> str:
    return card.split("```python\n")[1].split("\n```")[0]


@pytest.mark.parametrize("form", ["prompt", "text", "messages", "classes"])
def test_the_way_to_use_it_works_in_the_models_folder(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model_folder(tmp_path)
    columns = {
        "prompt": {"prompt": 'Say "{a}":\n```', "response": "{b}"},
        "text": {"text": "body"},
        "messages": {"messages": "chat"},
        "classes": {"text": "body", "label": "kind"},
    }[form]
    task = "sequence-classification" if form == "classes" else "causal-lm"
    if form == "classes":
        labels = {"id2label": {0: "joy", 1: "fear"}, "label2id": {"joy": 0, "fear": 1}}
        config = AutoConfig.from_pretrained(folder, **labels)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    if form == "messages":
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        tokenizer.save_pretrained(folder)
    recipe, run = finished()
    config = run.config.model_copy(update={"task": task, "data": DataConfig(train="x", **columns)})
    text = model_card(recipe, replace(run, config=config))
    # A fence that the prompt cannot end.
    code = text.split("````python\n")[1].split("\n````")[0] if form == "prompt" else code_of(text)
    monkeypatch.chdir(folder)
    exec(compile(code, "card", "exec"), {})
    printed = capsys.readouterr().out
    assert ("joy" in printed and "fear" in printed) if form == "classes" else printed


def test_a_classifiers_card_calls_the_class_prior_by_its_name() -> None:
    recipe, run = finished(test_metrics={"accuracy": 0.5, "macro_f1": 0.4})
    config = run.config.model_copy(update={"task": "sequence-classification"})
    text = model_card(recipe, replace(run, config=config))
    assert "| split | this model | class prior |" in text and "base model |" not in text
    assert "| test, Macro-F1 | 0.4000 | |" in text
    metrics = {r.metric_type: r.metric_name for r in ModelCard(text).data.eval_results}
    assert metrics["f1"] == "Test Macro-F1" and metrics["accuracy"] == "Test Accuracy"


def renamed(recipe: Recipe, part: str, **changes: str) -> Recipe:
    content = recipe.best.to_dict()
    return replace(recipe, best=Best.read(content | {part: content[part] | changes}))


def test_text_from_outside_stays_text() -> None:
    recipe, run = finished(notes=("<script>alert(1)</script> | `x`",))
    recipe = renamed(recipe, "study", name="a<b>|c")
    text = model_card(recipe, run)
    assert "<script>" not in text and "a<b>" not in text.split("---")[2]
    assert "&lt;script&gt;" in text


def test_other_data_than_the_studys_are_told() -> None:
    recipe, run = finished()
    assert "not those of the study" not in model_card(recipe, run)
    recipe = renamed(recipe, "data", fingerprint="another")
    assert "not those of the study" in model_card(recipe, run)


def test_the_record_gives_programs_everything() -> None:
    recipe, run = finished()
    found = json.loads(record(recipe, run))
    assert found["best_configuration"] == recipe.best.to_dict()
    assert found["outcome"]["test_loss"] == pytest.approx(4.2)
    assert "test_losses" not in found["outcome"]
    assert found["spec"]["hyperparameters"] == run.spec.hyperparameters
    assert len(found["measurements"]) == 5
