"""The command line, run as a user runs it, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study.orchestration.sampling import FixedPointSampler
from study.plan import ModelFacts, cell_of, plan_study
from study.records import BaseModelRecord, TrialOutcome, TrialState
from study.store import StudyStore
from tests.data import task_rows, write_jsonl
from tests.models import tiny_model_folder
from tests.results import make_config
from tests.test_store import measurement


def study(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "study", *arguments],
        cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and `study init`'s file pointed at them."""
    folder = tmp_path_factory.mktemp("project")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(300))
    done = study("init", cwd=folder)
    assert done.returncode == 0, done.stderr
    path = folder / "study.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["path"] = "./tiny-llama-0"
    config["data"] |= {"train": "mine.jsonl", "prompt": "{question}", "response": "{answer}"}
    config["dataset_sizes"] = [24, 48, 96, 192]
    config["training"] = {"global_batch_size": 8, "sequence_length": 64}
    path.write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of a finished study, its numbers made up."""
    folder = tmp_path_factory.mktemp("finished")
    config = make_config(
        sizes=(64, 128), replicates=1, trials=2, confirm_seeds=1, storage={"results": str(folder)}
    )
    plan = plan_study(config, ModelFacts(4))
    store = StudyStore.create(config)
    store.set_info("num_blocks", 4)
    store.set_info("base", BaseModelRecord(3.0, 3.1, None).to_dict())

    def run(spec, loss: float) -> None:  # type: ignore[no-untyped-def]
        domains = config.space().for_arm(spec.arm)
        distributions = {name: domain.distribution() for name, domain in domains.items()}
        store.begin(plan, spec, distributions, FixedPointSampler(spec.hyperparameters))
        store.report(spec, measurement(spec.steps, loss))
        outcome = TrialOutcome(
            "finished", score=loss, best_step=spec.steps, test_loss=loss + 0.1,
            deepspeed_config={"zero_optimization": {"stage": 2}},
        )  # fmt: skip
        store.finish(spec, TrialState.COMPLETE, outcome)

    for number, spec in enumerate(plan.search):
        run(spec, 2.0 + number / 100)
    for cell in plan.cells:
        winner = next(s for s in plan.search if cell_of(s) == cell)
        for spec in plan.confirm(cell, winner.hyperparameters):
            run(spec, 2.5)
    return folder


def test_help_names_every_verb(tmp_path: Path) -> None:
    done = study("--help", cwd=tmp_path)
    assert done.returncode == 0
    for verb in ("init", "plan", "run", "status", "show", "report", "best", "clean"):
        assert f" {verb} " in done.stdout


def test_a_new_users_file_can_be_planned_after_three_edits(project: Path) -> None:
    done = study("plan", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "LIFT takes" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80 or str(project) in done.stdout


def test_init_does_not_replace_a_file_unless_told(project: Path) -> None:
    done = study("init", cwd=project)
    assert done.returncode == 2
    assert "--force" in done.stderr


@pytest.mark.parametrize("template", ["causal-lm", "classification", "gpu-cluster", "demo"])
def test_every_template_is_written(tmp_path: Path, template: str) -> None:
    done = study("init", "--template", template, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["name"]


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["plan", "missing.yaml"], "study init"),
        (["run", "missing.yaml"], "study init"),
        (["status", "missing"], "No study missing"),
        (["report", "."], "neither study.db nor study.yaml"),
        (["init", "--template", "nonsense"], "Use one of"),
    ],
)
def test_a_wrong_argument_gets_one_message_and_exit_code_2(
    tmp_path: Path, arguments: list[str], telling: str
) -> None:
    done = study(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert telling in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        ({"dataset_sizes": [100, 5000]}, "5000"),
        ({"data": {"train": "mine.jsonl", "prompt": "{nothing}", "response": "{answer}"}},
         "nothing"),
        ({"model": {"path": "./nowhere"}}, "nowhere"),
        ({"data": {"train": "empty.jsonl", "text": "text"}}, "empty"),
        ({"data": {"train": "broken.jsonl", "text": "text"}}, "broken.jsonl"),
        ({"data": {"train": "mine.jsonl", "text": "question", "label": "kind"},
          "task": "sequence-classification"}, "kind"),
        ({"data": {"train": "mine.jsonl", "messages": "question"}}, "chat template"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_run_says_so_before_ray_starts(
    project: Path, change: dict, telling: str
) -> None:
    (project / "empty.jsonl").write_text("")
    (project / "broken.jsonl").write_text('{"text": "good"}\n{"text": \n')
    config = yaml.safe_load((project / "study.yaml").read_text()) | change
    (project / "wrong.yaml").write_text(yaml.safe_dump(config | {"name": "wrong"}))
    done = study("run", "wrong.yaml", cwd=project)
    assert done.returncode == 2, done.stderr
    assert telling in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Starting Ray" not in done.stdout


def test_an_architecture_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertForMaskedLM

    from tests.models import tiny_tokenizer

    folder = tmp_path / "albert"
    config = AlbertConfig(
        vocab_size=261, hidden_size=16, embedding_size=8, num_hidden_layers=4,
        num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    AlbertForMaskedLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(60)]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "albert",
                "model": {"path": "./albert"},
                "task": "sequence-classification",
                "data": {"train": "mine.jsonl", "text": "text", "label": "label"},
                "dataset_sizes": 16,
                "arms": ["full", "lift"],
            }
        )
    )
    done = study("plan", cwd=tmp_path)
    assert done.returncode == 2
    assert "Albert" in done.stderr and "Traceback" not in done.stderr


def test_status_shows_each_cell(finished: Path) -> None:
    done = study("status", str(finished), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "12 complete" in done.stdout
    assert done.stdout.count("3/3") == 4


def test_show_prints_a_trial_and_names_others_when_there_is_none(finished: Path) -> None:
    done = study("show", "lift-n64-r0-s1", str(finished), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout and "COMPLETE" in done.stdout
    wrong = study("show", "lift-n65-r0-s1", str(finished), cwd=finished)
    assert wrong.returncode == 2 and "full-n64-r0-s0" in wrong.stderr


def test_report_writes_one_html_file_and_markdown(finished: Path, tmp_path: Path) -> None:
    done = study("report", str(finished), "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "report.md").is_file()


def test_best_prints_yaml_and_asks_for_an_arm_when_there_are_two(finished: Path) -> None:
    done = study("best", str(finished), "--arm", "lift", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in yaml.safe_load(done.stdout)["hyperparameters"]
    assert study("best", str(finished), cwd=finished).returncode == 2


def test_clean_asks_first_and_keeps_the_results(project: Path, finished: Path) -> None:
    (finished / "ray").mkdir(exist_ok=True)
    (finished / "ray" / "file").write_text("x" * 2048)
    refused = study("clean", str(finished), cwd=finished, stdin="n\n")
    assert "2.0 KiB" in refused.stdout and (finished / "ray").exists()
    done = study("clean", str(finished), "--yes", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert not (finished / "ray").exists() and (finished / "study.db").exists()


def test_a_results_folder_that_cannot_be_written_is_one_message(project: Path) -> None:
    config = yaml.safe_load((project / "study.yaml").read_text())
    config |= {"name": "unwritable", "storage": {"results": "mine.jsonl/below-a-file"}}
    (project / "unwritable.yaml").write_text(yaml.safe_dump(config))
    done = study("run", "unwritable.yaml", cwd=project)
    assert done.returncode == 2, done.stderr
    assert "below-a-file" in done.stderr and "Traceback" not in done.stderr
