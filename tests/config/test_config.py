"""Study files that are right: defaults, short forms, paths, helpers, round trips."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from study.basics.errors import ConfigError
from study.config.arms import read_arms
from study.config.load import StudyConfig, load_config, parse_config
from study.config.space.read import FixedDomain, FloatDomain, load_space

MINIMAL = """
name: tiny
model: {path: org/model}
data: {train: org/data, text: text}
dataset_sizes: [64, 512]
arms: [full, lift]
"""


def test_a_plain_sweep_needs_no_more_lines_than_a_comparison() -> None:
    config = parse_config(
        "name: sweep\nmodel: {path: org/model}\ndata: {train: org/data, text: text}\n"
        "dataset_sizes: 1000\narms: full\nsearch: {trials: 20, replicates: 1}\n"
        "confirm: {seeds: 0}\n"
    )
    assert config.dataset_sizes == [1000]
    assert config.arms.names == ("full",)
    assert (config.search.trials, config.search.replicates, config.confirm.seeds) == (20, 1, 0)


@pytest.mark.parametrize(
    ("arms", "names"),
    [
        ("[lift, full]", ("full", "lift")), ("lift", ("lift",)), ("{full: }", ("full",)),
        ("{full: {}, lift: null}", ("full", "lift")), ("{lift: {group_size: 2}}", ("lift",)),
    ],
)  # fmt: skip
def test_an_arm_that_is_written_is_on(arms: str, names: tuple[str, ...]) -> None:
    config = parse_config(MINIMAL.replace("[full, lift]", arms))
    assert config.arms.names == names


def test_an_arm_left_out_in_python_is_off() -> None:
    assert read_arms({"lift": {"sweeps": 2}}).names == ("lift",)


def test_dataset_sizes_are_kept_ascending() -> None:
    assert parse_config(MINIMAL.replace("[64, 512]", "[512, 64, 128]")).dataset_sizes == [
        64, 128, 512,
    ]  # fmt: skip


def test_a_section_whose_lines_are_all_comments_has_its_defaults() -> None:
    config = parse_config(MINIMAL + "training:\n  # epochs: 3\nzero:\n")
    assert config.training == parse_config(MINIMAL).training
    assert config.zero.stage == 2


def test_numbers_in_scientific_notation_without_a_dot_are_numbers() -> None:
    config = parse_config(MINIMAL + "decision: {rho: 2e-2}\ntraining: {epsilon: 1E-6}\n")
    assert config.decision.rho == 0.02
    assert config.training.epsilon == 1e-6


def test_a_budget_is_hours_or_no_limit() -> None:
    assert parse_config(MINIMAL).budget.wall_hours is None
    budget = parse_config(MINIMAL + "budget: {device_hours: 40, wall_hours: 1.5}\n").budget
    assert (budget.device_hours, budget.wall_hours) == (40, 1.5)


def test_relative_paths_are_relative_to_the_study_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl.gz", "general.txt"):
        (tmp_path / "data" / name).write_text("{}\n")
    (tmp_path / "study.yaml").write_text(
        "name: here\nmodel: {path: model, tokenizer: ./model}\n"
        "data: {train: [data/a.jsonl, 'data/*.gz'], test: data, retention: data/general.txt,"
        " text: text}\n"
        "dataset_sizes: 8\narms: full\nstorage: {results: out, database: 'sqlite:///my.db'}\n"
    )
    config = load_config(tmp_path / "study.yaml")
    assert config.model.path == config.model.tokenizer == str(tmp_path / "model")
    assert config.data.train == [str(tmp_path / "data/a.jsonl"), str(tmp_path / "data/*.gz")]
    assert config.data.test == str(tmp_path / "data")
    assert config.data.retention == str(tmp_path / "data/general.txt")
    assert config.results_dir == tmp_path / "out"
    assert config.database_url == f"sqlite:///{tmp_path}/my.db"


def test_hub_ids_are_left_alone(tmp_path: Path) -> None:
    config = parse_config(
        MINIMAL.replace("{path: org/model}", "{path: gpt2, tokenizer: org/tok}"), tmp_path
    )
    assert (config.model.path, config.model.tokenizer) == ("gpt2", "org/tok")
    assert config.data.train == "org/data"
    assert config.data.retention == "general"


def test_results_and_database_lie_beside_the_study_file_by_default(tmp_path: Path) -> None:
    config = parse_config(MINIMAL, tmp_path)
    assert config.results_dir == tmp_path / "results" / "tiny"
    assert config.database_url == f"sqlite:///{tmp_path}/results/tiny/study.db"
    assert config.database_url.startswith("sqlite:////")


def test_a_database_url_is_passed_on(tmp_path: Path) -> None:
    url = "postgresql://me:pass@db.example:5432/study"
    config = parse_config(MINIMAL + f"storage: {{database: '{url}'}}\n", tmp_path)
    assert config.database_url == url


def test_a_loaded_configuration_holds_its_search_space(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "shared: {learning_rate: {low: 1e-5, high: 1e-3, log: true}, warmup_ratio: 0,"
        " max_grad_norm: 1}\n"
    )
    text = MINIMAL + (
        "search:\n  space: ./mine.yaml\n"
        "  overrides: {learning_rate: {high: 1e-4}, lift: {sweeps: 2}}\n"
    )
    config = parse_config(text, tmp_path)
    file.unlink()
    space = StudyConfig.from_dict(json.loads(json.dumps(config.to_dict()))).space()
    assert space.name == "mine"
    assert space.for_arm("full")["learning_rate"] == FloatDomain(1e-5, 1e-4, log=True)
    assert space.for_arm("lift")["sweeps"] == FixedDomain(2)


def test_a_configuration_made_in_python_finds_named_spaces() -> None:
    config = StudyConfig.model_validate(
        {
            "name": "py", "model": {"path": "m"}, "data": {"train": "d", "text": "text"},
            "dataset_sizes": [8], "arms": ["full"],
        }
    )  # fmt: skip
    assert config.space() == load_space("default")


@pytest.mark.parametrize("arms", ["[full]", "[full, lift]", "{lift: {sweeps: 2}}"])
def test_a_configuration_survives_json(arms: str) -> None:
    config = parse_config(MINIMAL.replace("[full, lift]", arms))
    again = StudyConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.arms.names == config.arms.names


def test_reading_back_does_not_look_for_files(tmp_path: Path) -> None:
    text = MINIMAL.replace("org/data", "./gone.jsonl").replace("org/model", "./gone")
    config = parse_config(text, tmp_path)
    assert StudyConfig.from_dict(config.to_dict()) == config


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        parse_config(MINIMAL).name = "other"  # type: ignore[misc]


def test_a_mapping_is_read_like_a_file() -> None:
    data = {
        "name": "tiny", "model": {"path": "org/model"}, "data": {"train": "org/data",
        "text": "text"}, "dataset_sizes": [64, 512], "arms": ["full", "lift"],
    }  # fmt: skip
    assert parse_config(data) == parse_config(MINIMAL)


@pytest.mark.parametrize("columns", [
    'prompt: "{question}\\n", response: "{the answer}"', "messages: messages",
    'prompt: "Write a poem:", response: "{poem}"', 'prompt: "{{json}} {q}", response: "{a}"',
])  # fmt: skip
def test_each_form_of_causal_lm_data_is_accepted(columns: str) -> None:
    parse_config(MINIMAL.replace("text: text", columns))


def test_classification_takes_text_and_label() -> None:
    text = MINIMAL.replace("text: text", "text: sentence, label: label")
    config = parse_config(text + "task: sequence-classification\n")
    assert (config.data.text, config.data.label) == ("sentence", "label")


@pytest.mark.parametrize("extra", [
    "search: {pruner: asha}\ntraining: {patience: 2}\n",
    "training: {steps: 50}\n",
    "zero: {stage: 3, offload_parameters: cpu, offload_optimizer: cpu}\n",
    "zero: {overrides: {zero_optimization: {overlap_comm: true}, wall_clock_breakdown: true}}\n",
    "resources: {gpus_per_worker: 0.5}\n",
    "training: {global_batch_size: 24, micro_batch_size_per_worker: 3}\n"
    "resources: {workers_per_trial: 4, concurrent_trials: 2}\n",
    "data: {train: org/data, text: text, retention: null, validation_size: 100}\n",
])  # fmt: skip
def test_settings_that_go_together_are_accepted(extra: str) -> None:
    base = MINIMAL if not extra.startswith("data") else "\n".join(
        line for line in MINIMAL.splitlines() if not line.startswith("data:")
    ) + "\n"  # fmt: skip
    parse_config(base + extra)


def test_a_configuration_can_be_read_without_the_heavy_libraries() -> None:
    code = (
        "import sys, study.cli.examples.templates; from study.config.load import parse_config\n"
        f"parse_config({MINIMAL!r})\n"
        "heavy = {'torch', 'transformers', 'ray', 'datasets', 'deepspeed', 'optuna', 'numpy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_study_file_is_one_clear_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_config(tmp_path / "study.yaml")
    assert "study init" in str(caught.value)
    assert caught.value.exit_code == 2
