"""What labels mean: their ids, the base model's own head, and what nothing could learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from study.basics.errors import DataError
from study.config.load import ModelConfig
from study.protocol.records import KEPT_HEAD
from study.training.data.labels import SINGLE_LABEL, Head, Label, alike, resolve_labels
from study.training.model.load import load_model, new_head, own_head
from tests.helpers.models import tiny_model_folder

SPAM = Head(("spam", "ham"), SINGLE_LABEL)
TASK = "sequence-classification"


@pytest.mark.parametrize(
    ("labels", "declared", "head", "names", "ids"),
    [
        (["ham", "spam"], None, SPAM, ("spam", "ham"), [1, 0]),
        (["Ham", "SPAM "], None, SPAM, ("spam", "ham"), [1, 0]),
        ([0, 1], ["ham", "spam"], SPAM, ("spam", "ham"), [1, 0]),
        (["ham", "ham"], None, SPAM, ("spam", "ham"), [1, 1]),
        ([0, 2], None, Head(("LABEL_0", "LABEL_1", "LABEL_2"), SINGLE_LABEL),
         ("LABEL_0", "LABEL_1", "LABEL_2"), [0, 2]),
    ],
)  # fmt: skip
def test_the_heads_ids_where_names_agree(
    labels: Sequence[Label],
    declared: Sequence[str] | None,
    head: Head,
    names: tuple[str, ...],
    ids: list[int],
) -> None:
    classes = resolve_labels({"train": labels}, declared, head)
    assert (classes.names, classes.ids["train"], classes.head) == (names, ids, KEPT_HEAD)


@pytest.mark.parametrize(
    ("labels", "head", "why"),
    [
        (["ham", "eggs"], SPAM, "the base model's tells apart spam, ham, the labels are eggs, ham"),
        ([0, 1], SPAM, "the base model's tells apart spam, ham, the labels are 0, 1"),
        ([0, 1], Head(("LABEL_0",), "regression"), "the base model's gives a text a number"),
        ([0, 1], Head(("0", "1"), "multi_label_classification"), "any number of classes"),
        ([0, 1, 2], Head(("0", "1"), SINGLE_LABEL), "tells apart 0, 1, the labels are 0, 1, 2"),
        ([0, 1], None, "the base model has none"),
    ],
)
def test_a_new_head_says_why(labels: Sequence[Label], head: Head | None, why: str) -> None:
    assert why in resolve_labels({"train": labels}, None, head).head


def test_names_that_look_like_one_class_are_told() -> None:
    (note, other) = alike(["Pos", "neg", "pos ", "caf\u00e9", "cafe\u0301"])
    assert note.startswith("The classes 'Pos', 'pos ' differ only in capitals, white space")
    assert "caf" in other and not alike(["yes", "no", "eyes"])


def test_spellings_of_one_integer_are_one_label() -> None:
    labels: Mapping[str, Sequence[Label]] = {
        "train": ["0", "1", "2"], "test": ["0.0", "2.00"], "validation": [1],
    }  # fmt: skip
    classes = resolve_labels(labels, None)
    assert classes.names == ("0", "1", "2")
    assert classes.ids == {"train": [0, 1, 2], "test": [0, 2], "validation": [1]}


@pytest.mark.parametrize(
    ("labels", "declared", "said"),
    [
        ({"train": ["yes", "no"], "test": ["Yes"]}, None, "data.test: has the labels 'Yes', which"),
        ({"train": [0, 2], "validation": [1, 2]}, None, "data.validation: has the labels '1',"),
        ({"train": [0, 1], "test": [2]}, ["a", "b", "c"], r"labels 'c', .* \('a', 'b'\)"),
    ],
)  # fmt: skip
def test_labels_that_training_lacks_are_refused(
    labels: dict[str, list[Label]], declared: list[str] | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        resolve_labels(labels, declared)


def classifier(
    folder: Path, architecture: str, **changes: Any
) -> tuple[ModelConfig, PreTrainedModel]:
    """A folder with a trained head, and its model."""
    path = tiny_model_folder(folder, architecture)
    model = AutoModelForSequenceClassification.from_pretrained(path, **changes)
    model.save_pretrained(path)
    return ModelConfig(path=str(path)), model


@pytest.mark.parametrize("architecture", ["llama", "bert", "roberta"])
def test_a_trained_head_stays_with_its_classes_and_no_others(
    tmp_path: Path, architecture: str
) -> None:
    names = {"id2label": {0: "spam", 1: "ham"}, "label2id": {"spam": 0, "ham": 1}}
    config, saved = classifier(tmp_path, architecture, **names)
    assert own_head(config, TASK) == SPAM and own_head(config, "causal-lm") is None
    expected = dict(saved.named_parameters())

    kept = load_model(config, TASK, ("spam", "ham"), torch.float32, seed=0)
    assert new_head(kept) == ()
    assert all(torch.equal(p, expected[name]) for name, p in kept.named_parameters())

    torch.manual_seed(9)
    first, again = (load_model(config, TASK, ("ham", "spam"), torch.float32, s) for s in (1, 1))
    other = load_model(config, TASK, ("ham", "spam"), torch.float32, seed=2)
    assert torch.initial_seed() == 9
    assert new_head(first) and not any(
        n.startswith(first.base_model_prefix) for n in new_head(first)
    )
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])
        if name not in new_head(first):
            assert torch.equal(parameter, expected[name])
        elif name.endswith("weight"):
            assert not torch.equal(parameter, expected[name])
            assert not torch.equal(parameter, dict(other.named_parameters())[name])

    larger = load_model(config, TASK, ("a", "b", "c", "d", "e"), torch.float32, seed=1)
    assert larger.num_labels == 5 and set(new_head(larger)) >= set(new_head(first))


def test_regression_and_multi_label_heads(tmp_path: Path) -> None:
    config, _ = classifier(tmp_path / "a", "bert", num_labels=1)
    head = own_head(config, TASK)
    assert head is not None and head.problem == "regression"
    problem = "multi_label_classification"
    config, _ = classifier(tmp_path / "b", "bert", num_labels=3, problem_type=problem)
    head = own_head(config, TASK)
    assert head is not None and head.problem == problem
    model = load_model(config, TASK, ("a", "b", "c"), torch.float32, 0)
    assert model.config.problem_type == SINGLE_LABEL and new_head(model)
