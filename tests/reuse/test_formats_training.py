"""A short run from the transformers export makes the steps of the study's trial."""

from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.config.load import StudyConfig
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.workers import run_workers
from tests.reuse.best_content import best_content, export

STEPS, WARMUP, MADE, BATCH, SIZE = 40, 6, 10, 8, 80


CAUSAL, CLASSES = "causal-lm", "sequence-classification"
COLUMNS = {
    CAUSAL: {"prompt": "{question}", "response": "{answer}"},
    CLASSES: {"text": "question", "label": "kind"},
}


def make_config(folder: Path, evaluations: int, task: str = CAUSAL) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "short",
            "task": task,
            "model": {"path": str(folder / "tiny-llama-0"), "dropout": 0.0},
            "data": {
                "train": str(folder / "mine.jsonl"),
                "retention": None,
            }
            | COLUMNS[task],
            "dataset_sizes": [SIZE],
            "arms": {"full": {}},
            "search": {
                "space": {
                    "shared": {
                        "learning_rate": 5e-3,
                        "warmup_ratio": WARMUP / STEPS,
                        "max_grad_norm": 0.5,
                        "weight_decay": 0.1,
                        "beta2": 0.98,
                    }
                },
                "trials": 1,
                "replicates": 1,
            },
            "confirm": {"seeds": 0},
            "training": {
                "steps": STEPS,
                "global_batch_size": BATCH,
                "micro_batch_size_per_worker": 4,
                "sequence_length": 48,
                "epsilon": 1e-6,
                # The training loss on record is the mean since the evaluation before.
                "evaluations": evaluations,
            },
            "storage": {"results": str(folder / "results")},
        }
    )


@pytest.fixture(scope="module")
def courses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import use_data
    from study.training.model.load import load_tokenizer

    folder = tmp_path_factory.mktemp("formats")
    tiny_model_folder(folder)
    rows = [row | {"kind": f"kind {k % 3}"} for k, row in enumerate(task_rows(120))]
    write_jsonl(folder / "mine.jsonl", rows)
    for task in (CAUSAL, CLASSES):
        config = make_config(folder, STEPS, task)
        data = prepare_data(config, folder / task, load_tokenizer(config.model))
        use_data(folder / task, data.fingerprint)
    (found,) = run_workers(functools.partial(both, folder=folder), 1)
    return dict(found)


def both(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """The first steps of trials, and those of Trainer with their exports."""
    return course(folder, CLASSES, rank, world_size) | course(folder, CAUSAL, rank, world_size)


def course(folder: Path, task: str, rank: int, world_size: int) -> dict[str, Any]:
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        DataCollatorWithPadding,
    )

    from study.protocol.plan import ModelFacts, plan_study
    from study.training.data.batches import subset_indices
    from study.training.data.tokenised import StudyData
    from study.training.feed import Feed
    from study.training.loop import Signal, run_trial
    from study.training.model.base_model import BaseModel
    from study.training.placement import Placement

    config = make_config(folder, STEPS, task)
    data = StudyData.open(folder / task)
    placement = Placement(torch.device("cpu"), rank, world_size)
    (spec,) = plan_study(config, ModelFacts(4)).search
    reported: list[Any] = []
    asked = itertools.count()

    def stop_in_time() -> Signal:
        return Signal.STOP if next(asked) == MADE else Signal.GO_ON

    outcome = run_trial(config, spec, data, placement, reported.append, signal=stop_in_time)
    content = best_content(
        hyperparameters=dict(spec.hyperparameters),
        training=config.training.model_dump(mode="json") | {"evaluations": STEPS // MADE},
        run={"steps": spec.steps},
        seeds={"trial": spec.seed, "order": spec.order_seed},
        zero=config.zero.model_dump(mode="json"),
        resources={"workers_per_trial": world_size},
        model=config.model.model_dump(mode="json"),
        task=task,
        data=config.data.model_dump(mode="json") | {"label_names": list(data.summary.label_names)},
    )
    content["deepspeed"] = outcome.deepspeed_config
    batches = Feed(config, data, placement).train_batches(
        subset_indices(len(data.pool), spec.size, spec.subset_seed), spec.order_seed
    )
    order = [int(i) for step in range(MADE) for i in batches.example_ids(step)]
    rows, held_out = (
        [
            {
                "input_ids": split.input_ids(i).tolist(),
                "labels": split.labels(i).tolist() if task == CAUSAL else int(split.label(i)),
            }
            for i in ids
        ]
        for split, ids in ((data.pool, order), (data.validation, range(len(data.validation))))
    )
    made = export(content, "transformers")
    text = made.text
    settings = yaml.safe_load(text)
    del settings["deepspeed"]
    plain = yaml.safe_dump(settings)
    trial = [
        {"loss": m.train_loss, "grad_norm": m.grad_norm, "learning_rate": m.learning_rate}
        for m in reported
    ]
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    if task == CLASSES:
        # The head's random weights too; the loss is the one that the export's note spells out.
        model = BaseModel(config, data.num_labels, placement).fresh(spec.seed)
        model.config.pad_token_id = tokenizer.pad_token_id
        told = re.search(r"compute_loss_func=(lambda .*), which", " ".join(made.notes))
        assert told is not None
        loss = eval(told[1], {"torch": torch})
        found = train(folder, "classes", plain, model, DataCollatorWithPadding(tokenizer),
                      rows, held_out, compute_loss_func=loss)  # fmt: skip
        return {"class trial": trial, "classes": found, "class notes": made.notes}

    def trained(name: str, text: str) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(
            config.model.path, attn_implementation="sdpa", dtype="float32"
        )
        collator = DataCollatorForSeq2Seq(tokenizer)
        return train(folder, name, text, model, collator, rows, held_out)

    return {
        "trial": trial,
        "validation": reported[-1].validation_loss,
        # DeepSpeed last: it stays on for the process.
        "plain": trained("plain", plain),
        "deepspeed": trained("deepspeed", text),
        "accumulation": accumulation(export(content, "deepspeed").text),
    }


def train(
    folder: Path,
    name: str,
    text: str,
    model: Any,
    collator: Any,
    rows: list[Any],
    held_out: list[Any],
    **more: Any,
) -> dict[str, Any]:
    """What Trainer logs of its first steps with these arguments."""
    from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments

    class StopInTime(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == MADE

    file = folder / f"{name}.yaml"
    file.write_text(text)
    (arguments,) = HfArgumentParser(TrainingArguments).parse_yaml_file(str(file))
    arguments.output_dir = str(folder / name)
    arguments.logging_steps = 1
    arguments.use_cpu = True
    # The rows are in the study's own order, which another generator cannot draw.
    arguments.train_sampling_strategy = "sequential"
    trainer = Trainer(model, arguments, collator, rows, held_out, callbacks=[StopInTime()], **more)
    trainer.train()
    history = trainer.state.log_history
    return {
        "steps": [
            {k: float(entry[k]) for k in ("loss", "grad_norm", "learning_rate")}
            for entry in history
            if "loss" in entry
        ],
        "evaluations": [entry["eval_loss"] for entry in history if "eval_loss" in entry],
        "best": trainer.state.best_model_checkpoint,
        "engine": trainer.is_deepspeed_enabled,
    }


def accumulation(text: str) -> list[int]:
    """What DeepSpeed's own configuration class makes of the JSON on one and two devices."""
    from deepspeed.runtime.config import DeepSpeedConfig

    class DataParallel:
        """What DeepSpeed asks for the number of data-parallel ranks."""

        def __init__(self, ranks: int) -> None:
            self.ranks = ranks

        def get_data_parallel_world_size(self) -> int:
            return self.ranks

    found = []
    for ranks in (1, 2):
        config = DeepSpeedConfig(json.loads(text), mpu=DataParallel(ranks))
        assert config.train_batch_size == BATCH and config.zero_optimization_stage == 2
        assert config.gradient_clipping == 0.5
        found.append(config.gradient_accumulation_steps)
    return found


@pytest.mark.parametrize("way", ["plain", "deepspeed"])
def test_trainer_makes_the_first_steps_of_the_trial(courses: dict[str, Any], way: str) -> None:
    trial, found = courses["trial"], courses[way]
    assert found["engine"] == (way == "deepspeed")
    assert len(trial) == len(found["steps"]) == MADE
    for step, (ours, theirs) in enumerate(zip(trial, found["steps"], strict=True), start=1):
        # The schedules part after the warmup, by a note's word; the loss shows it a step later.
        for name, exact in (("loss", WARMUP + 1), ("grad_norm", WARMUP + 1),
                            ("learning_rate", WARMUP)):  # fmt: skip
            tolerance = 1e-5 if step <= exact else 0.03 if name == "learning_rate" else 1e-3
            assert theirs[name] == pytest.approx(ours[name], rel=tolerance), (step, name)
    assert trial[-1]["loss"] < trial[0]["loss"] - 0.3


def test_trainer_makes_the_first_steps_of_a_classifiers_trial(courses: dict[str, Any]) -> None:
    for step, (ours, theirs) in enumerate(
        zip(courses["class trial"], courses["classes"]["steps"], strict=True), start=1
    ):
        tolerance = 1e-5 if step <= WARMUP else 0.03
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=tolerance), step
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=tolerance * 10), step
    assert "num_labels=3" in " ".join(courses["class notes"])


def test_trainer_evaluates_where_the_study_does_and_keeps_the_best(courses: dict[str, Any]) -> None:
    for way in ("plain", "deepspeed"):
        (evaluation,) = courses[way]["evaluations"]
        # Examples count alike there, tokens here.
        assert evaluation == pytest.approx(courses["validation"], rel=0.01)
        assert courses[way]["best"].endswith(f"checkpoint-{MADE}")


def test_deepspeed_derives_the_accumulation_for_any_number_of_devices(
    courses: dict[str, Any],
) -> None:
    # Eight examples a step, four a forward pass.
    assert courses["accumulation"] == [2, 1]
