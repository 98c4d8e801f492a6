"""A best configuration read back as a run: its settings, its steps, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.basics.errors import ConfigError, TrialError
from study.config.load import StudyConfig
from study.orchestration import final
from study.protocol.plan import ModelFacts, plan_study, trial_steps
from study.protocol.records import BaseModelRecord, Measurement, Stage, TrialSpec
from study.reuse import best_configuration
from study.reuse.best_file import RunPart
from study.reuse.recipe import read_recipe
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.results import make_results


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    tiny_model_folder(folder)
    write_jsonl(folder / "task.jsonl", task_rows(60))
    return folder


Write = Callable[..., Path]
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def write(files: Path, tmp_path: Path) -> Write:
    """Writes a best configuration after changing its plain values."""

    def written(change: Change = lambda c: None, arm: str = "lift") -> Path:
        results = make_results(
            model={"path": str(files / "tiny-llama-0")},
            data={
                "train": str(files / "task.jsonl"),
                "prompt": "{question}",
                "response": "{answer}",
            },
        )
        content = yaml.safe_load(written(best_configuration(results, arm, 128)))
        change(content)
        path = tmp_path / "best.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return written


@pytest.mark.parametrize("arm", ["full", "lift"])
def test_a_run_at_the_same_size_is_the_trial(write: Write, arm: str) -> None:
    recipe = read_recipe(write(arm=arm))
    spec = recipe.spec_at(128, 0)
    assert spec.steps == recipe.best.run.steps == recipe.config_at(128, "/r").training.steps
    assert spec.hyperparameters == recipe.best.hyperparameters
    assert spec.stage is Stage.CONFIRM, "it keeps its best weights, and never stops early"
    assert spec.evaluation_steps[-1] == spec.steps
    config = recipe.config_at(128, "/r")
    assert config.arms.names == (arm,)
    assert config.training.global_batch_size == 8
    assert str(config.results_dir) == "/r"
    # The plan itself would give a study of this arm alone just as many.
    assert trial_steps(config, ModelFacts(4), arm, 128, spec.hyperparameters) == spec.steps


def test_few_data_train_each_phase_for_a_step(write: Write) -> None:
    change = lambda c: (c["training"].update(min_steps=1), c["run"].update(steps=24))  # noqa: E731
    for arm, least in (("full", 1), ("lift", 4)):
        recipe = dataclasses.replace(read_recipe(write(change, arm)), num_blocks=4)
        spec, config = recipe.spec_at(2, 0), recipe.config_at(2, "/r")
        assert spec.steps == spec.evaluation_steps[-1] == config.training.steps == least
        # What prepares such a run plans just as many.
        facts = ModelFacts(num_blocks=4)
        assert plan_study(config, facts).search[0].steps == least
    edited = dataclasses.replace(
        recipe, best=recipe.best.model_copy(update={"run": RunPart(steps=2)})
    )
    assert edited.spec_at(128, 0).steps == 4, "as few were written in the file itself"


class Silent:
    """Follows a final run."""

    def message(self, text: str) -> None: ...

    def started(self, spec: TrialSpec, base: BaseModelRecord) -> None: ...

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None: ...


def test_a_final_run_on_few_data_asks_the_model_for_its_phases(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to where it would start Ray."""
    asked: list[TrialSpec] = []

    def stop(_config: StudyConfig, spec: TrialSpec, *_: Any) -> None:
        asked.append(spec)
        raise TrialError("here")

    monkeypatch.setattr(final, "_run", stop)
    change = lambda c: (c["training"].update(min_steps=1), c["run"].update(steps=24))  # noqa: E731
    recipe = read_recipe(write(change))
    with pytest.raises(TrialError, match="here"):
        final.train_final(recipe, str(tmp_path / "run"), Silent(), dataset_size=2)
    assert [spec.steps for spec in asked] == [4], "four groups of one block"


def test_more_data_train_by_the_same_rule(write: Write) -> None:
    full = read_recipe(write(arm="full"))
    assert full.steps_at(1280) == 480, "3 epochs of 1,280 examples in batches of 8"
    lift = read_recipe(write())
    assert lift.steps_at(1280) == round(lift.steps * 480 / max(100, 48))
    fixed = read_recipe(write(lambda c: c["training"].update(steps=70, epochs=None)))
    assert fixed.steps_at(1280) == fixed.steps


def test_seeds_differ_from_the_trials_and_follow_from_one(write: Write) -> None:
    recipe = read_recipe(write())
    one, two = recipe.spec_at(128, 0), recipe.spec_at(128, 1)
    assert one == recipe.spec_at(128, 0)
    assert {one.seed, one.order_seed}.isdisjoint({two.seed, two.order_seed})
    assert one.seed != recipe.best.seeds.trial


def drop(name: str) -> Change:
    return lambda content: content.pop(name)


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (drop("format"), "format", "must be 1"),
        (lambda c: c.update(format=2), "format", "must be 1"),
        (drop("arm"), "arm", "is required"),
        (drop("hyperparameters"), "hyperparameters", "is required"),
        (drop("model"), "model", "is required"),
        (lambda c: c.update(arm="lora"), "arm", "must be one of full, lift"),
        (lambda c: c["run"].update(steps=0), "run.steps", "at least 1"),
        (lambda c: c["run"].update(steps="many"), "run.steps", "at least 1"),
        (lambda c: c.update(run=3), "run", "must be a section"),
        (lambda c: c.update(dataset_size=0), "dataset_size", "at least 1"),
        (lambda c: c["hyperparameters"].update(learning_rate="fast"),
         "hyperparameters.learning_rate", "learning"),
        (lambda c: c["hyperparameters"].pop("max_grad_norm"), "hyperparameters", "max_grad_norm"),
        (lambda c: c["strategy"].update(sweeps=0), "strategy.sweeps", "at least 1"),
        (lambda c: c["strategy"].update(sweep=2), "strategy.sweep", "unknown key"),
        (lambda c: c["training"].update(global_batch_size=-1), "training.global_batch_size", "1"),
        (lambda c: c["model"].update(path="/nowhere/model"), "model.path", "no such model"),
        (lambda c: c["data"].update(train="/nowhere.jsonl"), "data.train", "/nowhere.jsonl"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_own_key_and_line(
    write: Write, change: Change, path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(change))
    fault = next(f for f in caught.value.faults if f.path == path)
    assert words in str(fault)
    if "is required" not in words and path != "format":
        assert fault.line is not None


@pytest.mark.parametrize("text", ["", "- 1\n", "name: study\n", "just words\n"])
def test_any_other_file_is_refused_with_what_writes_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="study best STUDY --arm ARM --output"):
        read_recipe(path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_recipe(tmp_path / "best.yaml")
