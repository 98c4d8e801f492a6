"""A trained model's folder, loaded as anybody would, gives the losses that were reported."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from study.basics.errors import TrialError
from study.config.load import StudyConfig
from study.protocol.records import Stage, TrialSpec
from study.training.data.tokenised import StudyData, TokenisedSplit
from tests.helpers.chat_templates import CHATML, chat_tokenizer
from tests.helpers.data import labelled_rows, study_config, task_rows, write_jsonl
from tests.helpers.models import tiny_model, tiny_model_folder
from tests.helpers.workers import run_workers

KINDS = {
    "llama, stage 2": ("llama", "full", 2, "fp32"),
    "llama, stage 3": ("llama", "lift", 3, "fp32"),
    "tied qwen3, stage 3, bf16": ("qwen3", "lift", 3, "bf16"),
    "gpt2, stage 0": ("gpt2", "full", 0, "fp32"),
    "mixture of experts, stage 3": ("mixtral", "lift", 3, "fp32"),
    "classifier, stage 3": ("llama", "lift", 3, "fp32"),
}


def study_of(folder: Path, name: str) -> StudyConfig:
    architecture, arm, stage, precision = KINDS[name]
    classifier = name.startswith("classifier")
    data: dict[str, Any] = {"train": str(folder / "task.jsonl"), "prompt": "{question}"}
    data |= {"response": "{answer}", "retention_size": 6}
    if classifier:
        data = {"train": str(folder / "labels.jsonl"), "text": "text", "label": "kind"}
    return StudyConfig.model_validate(
        {
            "name": "folders",
            "model": {"path": str(folder / f"tiny-{architecture}-0"), "dropout": 0.0},
            "task": "sequence-classification" if classifier else "causal-lm",
            "data": data,
            "dataset_sizes": [24],
            "arms": {arm: {"group_size": 2} if arm == "lift" else {}},
            "training": {
                "steps": 6,
                "global_batch_size": 8,
                "sequence_length": 48,
                "precision": precision,
            },
            # Tiny parameters would all stay whole.
            "zero": {
                "stage": stage,
                "overrides": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
            },
            "storage": {"results": str(folder / "results" / name.replace(" ", "-"))},
        }
    )


def spec_of(arm: str) -> TrialSpec:
    # So large a rate that the best evaluation is not the last one.
    chosen = {"learning_rate": 2e-2, "warmup_ratio": 0.0, "max_grad_norm": 1.0}
    return TrialSpec(
        trial_id=f"{arm}-final", arm=arm, size=24, replicate=0, stage=Stage.CONFIRM, index=0,
        seed=3, subset_seed=4, order_seed=5, steps=6, evaluation_steps=(1, 3, 4, 6),
        hyperparameters=chosen,
    )  # fmt: skip


def train_and_save(
    folder: Path, names: tuple[str, ...], rank: int, world_size: int
) -> dict[str, Any]:
    from study.training.loop import run_trial
    from study.training.model.model_folder import save_model
    from study.training.placement import Placement

    found = {}
    for name in names:
        config = study_of(folder, name)
        data = StudyData.open(config.results_dir / "data")
        placement = Placement(torch.device("cpu"), rank, world_size)
        keep = functools.partial(_save, save_model, config, data, placement)
        (arm,) = config.arms.names
        outcome = run_trial(
            config, spec_of(arm), data, placement, lambda measurement: None, keep_model=keep
        )
        found[name] = outcome.to_dict()
    return found


def _save(save: Any, config: Any, data: Any, placement: Any, model: Any, outcome: Any) -> None:
    assert outcome.test_loss is not None
    save(config.results_dir / "model", model, config, data, placement)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import use_data
    from study.training.model.load import load_tokenizer

    folder = tmp_path_factory.mktemp("folders")
    write_jsonl(folder / "task.jsonl", task_rows(80))
    write_jsonl(folder / "labels.jsonl", labelled_rows(80))
    for name, (architecture, *_) in KINDS.items():
        if not (folder / f"tiny-{architecture}-0").exists():
            tiny_model_folder(folder, architecture)
        config = study_of(folder, name)
        data = prepare_data(config, config.results_dir / "data", load_tokenizer(config.model))
        use_data(config.results_dir / "data", data.fingerprint)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Any]:
    return run_workers(functools.partial(train_and_save, folder, tuple(KINDS)), 2)[0]


@torch.no_grad()
def plain_loss(model: PreTrainedModel, split: TokenisedSplit) -> float:
    """Mean loss over targets, one example at a time, with nothing of the program's."""
    total = count = 0.0
    for index in range(len(split)):
        ids = torch.tensor(split.input_ids(index)[None].astype("int64"))
        logits = model(input_ids=ids).logits.float()
        if split.is_classification:
            labels = torch.tensor([split.label(index)])
        else:
            first = int(split.targets[index])
            logits, labels = logits[0, first - 1 : -1], ids[0, first:]
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return total / count


@pytest.mark.parametrize("name", KINDS)
def test_the_folder_gives_the_reported_losses(
    folder: Path, outcomes: dict[str, Any], name: str
) -> None:
    config, outcome = study_of(folder, name), outcomes[name]
    saved = config.results_dir / "model"
    data = StudyData.open(config.results_dir / "data")
    auto = AutoModelForCausalLM
    if config.task == "sequence-classification":
        auto = AutoModelForSequenceClassification
    model = auto.from_pretrained(saved, use_safetensors=True).eval()
    tolerance = 2e-2 if config.training.precision == "bf16" else 1e-4
    assert plain_loss(model, data.validation) == pytest.approx(outcome["score"], abs=tolerance)
    assert plain_loss(model, data.test) == pytest.approx(outcome["test_loss"], abs=tolerance)
    base = auto.from_pretrained(config.model.path, num_labels=model.config.num_labels)
    moved = {n: p for n, p in model.named_parameters() if not p.equal(base.get_parameter(n))}
    assert moved, "it is not the base model"
    assert model.config.use_cache is True
    assert AutoTokenizer.from_pretrained(saved)("abc")["input_ids"]
    if config.task == "causal-lm":
        assert (saved / "generation_config.json").is_file()
        assert len(model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2)[0]) > 3
    else:
        assert set(model.config.id2label.values()) == {"pear", "apple", "fig"}
    names = {path.name for path in saved.iterdir()}
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]
    assert not [path for path in saved.parent.iterdir() if "partial" in path.name]
    (folder / "any-file").touch()
    modes = {path.stat().st_mode for path in (folder / "any-file", *saved.iterdir())}
    assert len(modes) == 1, "a model is as readable as any other file"


def test_precision_is_kept(folder: Path, outcomes: dict[str, Any]) -> None:
    saved = study_of(folder, "tied qwen3, stage 3, bf16").results_dir / "model"
    model = AutoModelForCausalLM.from_pretrained(saved, dtype="auto")
    assert model.dtype is torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_generate_stops_where_the_model_was_taught_to(tmp_path: Path) -> None:
    from study.training.data.prepare import prepare_data
    from study.training.model.load import load_model, load_tokenizer
    from study.training.model.model_folder import save_model
    from study.training.placement import Placement

    tokenizer = chat_tokenizer(CHATML)
    base = tiny_model()
    base.resize_token_embeddings(len(tokenizer))
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {i}"},
                {"role": "assistant", "content": "ok"},
            ]
        }
        for i in range(20)
    ]
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    config = study_config(
        {"train": train, "messages": "messages"}, model={"path": str(tmp_path / "base")}
    )
    found = prepare_data(config, tmp_path / "data", load_tokenizer(config.model))
    data = StudyData.open(tmp_path / "data", found.fingerprint)
    model = load_model(config.model, config.task, 0, torch.float32, 0)
    save_model(tmp_path / "saved", model, config, data, Placement(torch.device("cpu"), 0, 1))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert saved.generation_config.eos_token_id == [tokenizer.eos_token_id, end]
    others = [token for token in range(len(tokenizer)) if token != end]
    prompt = torch.tensor([[5, 6, 7]])
    assert len(saved.generate(prompt, max_new_tokens=5, suppress_tokens=others)[0]) == 4


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, folder: Path) -> None:
    from study.training.model.load import load_model
    from study.training.model.model_folder import save_model
    from study.training.placement import Placement

    config = study_of(folder, "llama, stage 2")
    data = StudyData.open(config.results_dir / "data")
    model = load_model(config.model, config.task, 0, torch.float32, 0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrialError, match="the model cannot be saved"):
        place = Placement(torch.device("cpu"), 0, 1)
        save_model(tmp_path / "file" / "model", model, config, data, place)
    assert (tmp_path / "file").read_text() == "in the way"
