"""Exports to other tools: what they say, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import get_scheduler

from study.basics.errors import UserError
from study.reuse import best_configuration
from study.reuse.formats import FORMATS
from study.reuse.formats.trainer import nearest_schedule
from study.strategies.base import Phase
from study.training.schedule import learning_rate
from tests.helpers.results import make_results
from tests.reuse.best_content import best_content, export

NAMES = ("deepspeed", "transformers", "axolotl", "llamafactory")


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_says_where_it_comes_from(name: str) -> None:
    made = export(best_content(), name)
    about = made.siblings["deepspeed.txt"] if name == "deepspeed" else made.text
    if name != "deepspeed":
        about = "".join(line for line in about.splitlines(True) if line.startswith("# "))
    for part in (
        "full fine-tuning at 1,000 examples, study mine", "full-n1000-r1-s3", "equal tokens",
        "1.5300 (95 % interval 1.5000 to 1.5600)", "test loss 1.6000", "torch 2.13.0",
        "trial 11", "confirm 14, 15", "aaaa1111", "bbbb2222", "/results/mine", "30 of 40 trials",
        "Picked among 3 replicate winners",
    ):  # fmt: skip
        assert part in about, part
    assert "None" not in about


def test_the_format_of_the_study_gives_everything_back() -> None:
    content = best_content("lift")
    assert yaml.safe_load(export(content, "study").text) == content


def test_interpolated_values_are_named() -> None:
    chosen = {"interpolated": ["learning_rate"], "trials": ["full-n512-r0-s1", "full-n2048-r1-s0"]}
    text = export(best_content(chosen=chosen), "transformers").text
    assert "never run as such: learning_rate." in text
    assert "From trials full-n512-r0-s1, full-n2048-r1-s0" in text


def test_interpolated_clipping_is_not_the_one_the_trial_had() -> None:
    content = best_content(hyperparameters={"max_grad_norm": 0.8})
    assert json.loads(export(content, "deepspeed").text)["gradient_clipping"] == 0.8


@pytest.mark.parametrize("name", NAMES)
def test_what_a_study_has_on_record_can_be_exported(name: str) -> None:
    content = best_configuration(make_results(), "full", 128).file.to_dict()
    made = export(content, name)
    about = made.siblings.get("deepspeed.txt", made.text)
    assert "full fine-tuning at 128 examples, study synthetic" in about
    assert content["chosen"]["trials"][0] in about and "The study's answer at 128" in about


def test_text_of_a_study_cannot_leave_its_comment() -> None:
    text = export(best_content(chosen={"notes": ["a\nlearning_rate: 1"]}), "transformers").text
    assert "# a learning_rate: 1\n" in text
    assert yaml.safe_load(text)["learning_rate"] == 3e-5


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
def test_the_schedule_of_transformers_is_the_studys_or_says_how_it_differs(
    kind: str, warmup: int
) -> None:
    steps = 50
    found = nearest_schedule(kind, warmup, steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_scheduler(
        found.type, optimizer, found.warmup_steps, steps, dict(found.kwargs) or None
    )
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    phases = (Phase("all", ("w",), steps),)
    ours = [learning_rate(s, steps, 1.0, warmup / steps, kind, phases) for s in range(steps)]
    if kind == "linear" and warmup:
        assert theirs == pytest.approx([0.0, *ours[: warmup - 1], 1.0, *ours[warmup + 1 :]][:steps])
        assert "first step has learning rate 0" in found.notes[0]
        return
    assert theirs[:warmup] == pytest.approx(ours[:warmup], abs=1e-12)
    off = max(a - b for a, b in zip(ours, theirs, strict=True))
    assert min(a - b for a, b in zip(ours, theirs, strict=True)) > -1e-12
    if found.notes:
        assert f"at most {100 * off:.2g} % of its peak" in found.notes[0] and off < 0.04
    else:
        assert off < 1e-12


def test_batch_is_the_studys_however_many_workers_it_had() -> None:
    for workers, micro, expected in ((1, None, (8, 2)), (2, None, (8, 1)), (1, 6, (4, 4))):
        content = best_content(
            resources={"workers_per_trial": workers},
            training={"micro_batch_size_per_worker": micro},
        )
        found = yaml.safe_load(export(content, "transformers").text)
        sizes = found["per_device_train_batch_size"], found["gradient_accumulation_steps"]
        assert sizes == expected
        assert sizes[0] * sizes[1] * workers == 16


def test_chosen_values_go_before_settings() -> None:
    chosen = {"learning_rate": 1e-5, "warmup_ratio": 0.0, "weight_decay": 0.3, "beta2": 0.9}
    found = yaml.safe_load(export(best_content(hyperparameters=chosen), "transformers").text)
    assert found["weight_decay"] == 0.3 and found["adam_beta2"] == 0.9
    assert found["lr_scheduler_type"] == "cosine" and found["warmup_steps"] == 0


def test_precision_is_what_the_trial_trained_in() -> None:
    resolved = {"deepspeed": {"bf16": {"enabled": True}}}
    assert yaml.safe_load(export(best_content(**resolved), "axolotl").text)["bf16"] is True
    alone = best_content(zero={"stage": 0}, **resolved)
    assert "autocast over fp32" in export(alone, "transformers").text


def test_lift_is_refused_by_tools_that_train_everything_at_once() -> None:
    for name, reason in (("transformers", "no option to train groups"), ("axolotl", "LISA")):
        with pytest.raises(UserError, match=reason) as caught:
            export(best_content("lift"), name)
        for other in ("study", "llamafactory", "deepspeed"):
            assert other in str(caught.value)


CLASSES = {
    "task": "sequence-classification",
    "data": {"prompt": None, "response": None, "text": "text", "label": "kind",
             "label_names": ["joy", "anger", "fear"]},
}  # fmt: skip


def test_classification_is_refused_by_tools_for_language_models() -> None:
    for name in ("axolotl", "llamafactory"):
        with pytest.raises(UserError, match=r"sequence classification\..*or transformers"):
            export(best_content(**CLASSES), name)


@pytest.mark.parametrize("name", ["transformers", "deepspeed"])
def test_a_classifiers_export_has_its_classes_and_speaks_of_examples(name: str) -> None:
    notes = " ".join(export(best_content(**CLASSES), name).notes)
    assert (
        "AutoModelForSequenceClassification.from_pretrained('/models/base', num_labels=3" in notes
    )
    assert "in this order: 'joy', 'anger', 'fear'" in notes and "pad_token_id" in notes
    assert "over the examples of the whole step" in notes
    assert "tokens of the whole step" not in notes and "by its tokens" not in notes
    language = " ".join(export(best_content(), name).notes)
    assert "AutoModelForCausalLM" in language and "num_labels" not in language
    assert "tokens of the whole step" in language


@pytest.mark.parametrize("arms", [["full", "lift"], ["lift"]])
@pytest.mark.parametrize("strategy", [{}, {"cumulative": True}])
@pytest.mark.parametrize("task", [{}, CLASSES])
def test_what_a_refusal_recommends_is_not_refused(
    arms: list[str], strategy: dict[str, Any], task: dict[str, Any]
) -> None:
    content = best_content("lift", strategy=strategy, study={"arms": arms}, **task)
    refused = 0
    for name in FORMATS:
        try:
            export(content, name)
        except UserError as error:
            refused += 1
            told = str(error).partition("Use --format ")[2]
            named = [other for other in FORMATS if other in told]
            assert "study" in named and "deepspeed" in named
            for other in named:
                export(content, other)
            if "--arm full" in told:
                assert "full" in arms
                export(best_content("full", **task), name)
    assert refused >= 2


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ({"cumulative": True}, "cumulative"),
        ({"always_active": ["head"]}, "always_active"),
        ({"group_lr_decay": 0.9}, "group_lr_decay"),
        ({"phase_steps": "proportional"}, "phase_steps"),
        ({"group_size": None, "groups": [1, 3]}, "groups of different size"),
        ({"group_size": None, "groups": "1, 3"}, "groups of different size"),
    ],
)
def test_lift_that_badam_cannot_do_is_refused_with_the_reason(
    strategy: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        export(best_content("lift", strategy=strategy), "llamafactory")


@pytest.mark.parametrize(
    ("order", "mode"),
    [("top-down", "descending"), ("bottom-up", "ascending"), ("random", "random")],
)
def test_lift_becomes_badam_in_its_order(order: str, mode: str) -> None:
    made = export(best_content("lift", strategy={"order": order, "sweeps": 2}), "llamafactory")
    found = yaml.safe_load(made.text)
    assert found["use_badam"] and found["badam_mode"] == "layer"
    assert found["badam_switch_mode"] == mode
    assert (found["badam_switch_interval"], found["max_steps"]) == (25, 199)
    # One device: no ZeRO, and the whole batch by accumulation.
    assert "deepspeed" not in found
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 16
    for part in ("embeddings", "199 steps rather than 200", "0.01", "warms up again"):
        assert part in " ".join(made.notes)


def test_lift_on_zero_3_keeps_it_and_its_devices() -> None:
    made = export(best_content("lift", zero={"stage": 3}), "llamafactory")
    found = yaml.safe_load(made.text)
    assert found["deepspeed"]["train_micro_batch_size_per_gpu"] == "auto"
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 8


def test_deepspeed_of_lift_says_that_each_phase_has_an_engine() -> None:
    made = export(best_content("lift"), "deepspeed")
    assert "gradient_accumulation_steps" not in json.loads(made.text)
    notes = " ".join(made.notes)
    assert "engine of its own in each phase" in notes and "group 4 (block 0), sweep 1: 50" in notes


def test_a_trial_without_an_engine_on_record_has_no_deepspeed_file() -> None:
    content = best_content()
    content["deepspeed"] = None
    with pytest.raises(UserError, match="full-n1000-r1-s3 has no DeepSpeed configuration"):
        export(content, "deepspeed")
    stage = yaml.safe_load(export(content, "transformers").text)["deepspeed"]["zero_optimization"]
    assert stage == {"stage": 2}


def test_an_unknown_format_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="study, deepspeed, transformers, axolotl, llamafactory"):
        export(best_content(), "lightning")


def test_several_files_a_pattern_and_a_hub_id_are_named_apart(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).touch()
    data = {
        "prompt": None, "response": None, "text": "body", "validation": "org/held-out",
        "subset": "clean", "train": [str(tmp_path / "*.jsonl"), "/elsewhere/c.parquet"],
    }  # fmt: skip
    axolotl = yaml.safe_load(export(best_content(data=data), "axolotl").text)
    assert [d["ds_type"] for d in axolotl["datasets"]] == ["json", "json", "parquet"]
    assert {d["type"] for d in axolotl["datasets"]} == {"completion"}
    (held_out,) = axolotl["test_datasets"]
    assert (held_out["path"], held_out["name"]) == ("org/held-out", "clean")
    factory = export(best_content(data=data), "llamafactory")
    info = json.loads(factory.siblings["dataset_info.json"])
    assert [e.get("file_name") or e["hf_hub_url"] for e in info.values()] == [
        str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "/elsewhere/c.parquet",
        "org/held-out",
    ]  # fmt: skip
    found = yaml.safe_load(factory.text)
    assert found["stage"] == "pt" and found["dataset"] == "train_1,train_2,train_3"
    assert found["eval_dataset"] == "validation" and "val_size" not in found


def test_templates_that_a_tool_cannot_fill_are_written_out_for_the_user() -> None:
    data = {"prompt": "{a} {b} {c}\n", "validation": "/data/held-out.jsonl"}
    for name in ("axolotl", "llamafactory"):
        made = export(best_content(data=data), name)
        (note,) = [note for note in made.notes if "rendered.jsonl" in note]
        assert "rendered.jsonl and validation-rendered.jsonl" in note
        assert "'{a} {b} {c}\\n'" in note and "'{answer}'" in note
        assert "validation-rendered.jsonl" in made.text + "".join(made.siblings.values())


def test_importing_the_formats_needs_no_other_tool() -> None:
    banned = ("torch", "transformers", "deepspeed", "axolotl", "llamafactory", "datasets")
    code = (
        "import study.reuse.formats.trainer, study.reuse.formats.sources, sys\n"
        f"print(*(m for m in {banned!r} if m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
