"""The command line, run as a user runs it, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from study.basics.owned import claim
from study.config.load import load_config
from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, plan_trials
from study.protocol.records import BaseModelRecord, TrialOutcome, TrialState
from study.store.study_store import StudyStore
from study.training.prefix.store import cache_key
from tests.cli.conftest import OFF
from tests.helpers.commands import study, too_wide
from tests.helpers.data import write_jsonl
from tests.helpers.results import make_config


def test_help_names_every_verb(tmp_path: Path) -> None:
    done = study("--help", cwd=tmp_path)
    assert done.returncode == 0
    for verb in (
        "init", "plan", "check", "run", "status", "show", "stop", "report", "best", "clean",
    ):  # fmt: skip
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

    from tests.helpers.models import tiny_tokenizer

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


def test_status_tells_what_the_prefix_cache_did(finished: Path) -> None:
    done = study("status", str(finished), cwd=finished)
    told = " ".join(done.stdout.split())
    # Five trials looked 500 examples up and found 460.
    assert (
        "Prefix cache 2.0 MiB on disk, 92% of what was needed found there, 1 min 9 s of device "
        "time saved, 4 s spent filling; off in 1 trial (results differ when the lowest 3 blocks "
        "are left out (dropout))"
    ) in told
    assert too_wide(done.stdout, finished) == []


def test_show_tells_a_trials_own_use_of_the_cache_and_each_phases_memory(finished: Path) -> None:
    done = study("show", "lift-n128-r0-s0", str(finished), cwd=finished)
    told = " ".join(done.stdout.split())
    assert "100 of 100 hidden states found, 0 B written, 0 s spent filling, 15 s saved" in told
    assert "1 min 40 s (1 min 46 s with an empty prefix cache)" in told
    assert "0.25 s 1234.5 s 4.0 GiB 6.0 GiB" in told
    assert too_wide(done.stdout, finished) == []
    off = study("show", "lift-n64-r0-s1", str(finished), cwd=finished)
    assert OFF in " ".join(off.stdout.split())
    assert "Prefix cache" not in study("show", "full-n64-r0-s0", str(finished), cwd=finished).stdout


def test_show_prints_a_trial_and_names_others_when_there_is_none(finished: Path) -> None:
    done = study("show", "lift-n64-r0-s1", str(finished), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout and "COMPLETE" in done.stdout
    wrong = study("show", "lift-n65-r0-s1", str(finished), cwd=finished)
    assert wrong.returncode == 2 and "full-n64-r0-s0" in wrong.stderr


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A study whose first trial has ended and whose second runs."""
    config = make_config(
        sizes=(64, 128), replicates=1, trials=2, confirm_seeds=1,
        storage={"results": str(tmp_path)}, budget={"device_hours": 2.0, "wall_hours": 0.5},
    )  # fmt: skip
    plan = plan_trials(config, ModelFacts(4))
    store = StudyStore.create(config)
    store.set_info("num_blocks", 4)
    store.set_info("seconds", 720.0)
    for spec in plan.search[:2]:
        begin_trial(plan, store, spec)
    outcome = TrialOutcome("diverged", reason="NaN", device_seconds=1800.0)
    store.finish(plan.search[0], TrialState.FAIL, outcome)
    return tmp_path


def test_status_tells_what_is_used_of_the_budget(begun: Path) -> None:
    told = " ".join(study("status", str(begun), cwd=begun).stdout.split())
    assert "Budget 0.5 of 2 device hours, 0.2 of 0.5 wall hours" in told


def test_a_study_without_a_budget_has_no_such_line(finished: Path) -> None:
    assert "Budget" not in study("status", str(finished), cwd=finished).stdout


@pytest.mark.parametrize(
    ("trial", "telling"),
    [
        ("lift-n64-r0-s0", "stopped at its next evaluation"),
        ("lift-n64-r0-s1", "skipped. It is booked as failed when its turn comes"),
        ("full-n64-r0-c0", "skipped"),  # its winner is not known yet
    ],
)
def test_stop_leaves_a_request_and_says_what_becomes_of_it(
    begun: Path, trial: str, telling: str
) -> None:
    done = study("stop", trial, str(begun), cwd=begun)
    assert done.returncode == 0, done.stderr
    assert telling in done.stdout
    store = StudyStore.open(f"sqlite:///{begun}/study.db")
    assert store.stop_requests() == {trial}


@pytest.mark.parametrize(
    ("trial", "telling"),
    [
        ("lift-n64-r0-s7", "Nearest: lift-n64-r0-s"),
        ("full-n64-r0-s0", "already ended (FAIL)"),
        ("full-n64-r0-c1", "full-n64-r0-c0"),
    ],
)
def test_a_trial_that_cannot_be_stopped_is_one_message_and_exit_code_2(
    begun: Path, trial: str, telling: str
) -> None:
    done = study("stop", trial, str(begun), cwd=begun)
    assert done.returncode == 2 and done.stdout == ""
    assert telling in done.stderr and len(done.stderr.splitlines()) == 1
    assert not StudyStore.open(f"sqlite:///{begun}/study.db").stop_requests()


def test_plan_tells_how_a_file_extends_its_results_or_why_it_cannot(project: Path) -> None:
    config = yaml.safe_load((project / "study.yaml").read_text())
    config |= {"name": "growing", "search": {"trials": 2}}
    (project / "growing.yaml").write_text(yaml.safe_dump(config))
    store = StudyStore.create(load_config(project / "growing.yaml"))
    store.set_info("base", BaseModelRecord(3.0, 3.1, None).to_dict())
    config["search"] = {"trials": 4}
    (project / "growing.yaml").write_text(yaml.safe_dump(config))
    done = study("plan", "growing.yaml", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "Extending the study: search.trials 2 -> 4" in done.stdout
    config["training"] |= {"sequence_length": 32}
    (project / "growing.yaml").write_text(yaml.safe_dump(config))
    done = study("plan", "growing.yaml", cwd=project)
    assert done.returncode == 2
    assert "training.sequence_length: 64 -> 32" in done.stderr
    assert "search.trials:" not in done.stderr


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
    (finished / "ray" / "tune").mkdir(parents=True)
    (finished / "ray" / "tune" / "file").write_text("x" * 2048)
    refused = study("clean", str(finished), cwd=finished, stdin="n\n")
    assert "2.0 KiB" in refused.stdout and (finished / "ray").exists()
    done = study("clean", str(finished), "--yes", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert not (finished / "ray").exists() and (finished / "study.db").exists()


def test_clean_removes_the_prefix_cache_and_counts_its_holes_as_nothing(project: Path) -> None:
    claim(project / "results" / "my-study")
    key = project / "results" / "my-study" / "prefix_cache" / "host" / cache_key("any")
    key.mkdir(parents=True)
    rows = key / "pool.3.rows"
    with rows.open("wb") as file:
        file.truncate(2**30)
    done = study("clean", "--yes", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "prefix_cache" in done.stdout.replace("\n", "") and "GiB" not in done.stdout
    assert not rows.parents[2].exists()


def test_clean_touches_nothing_of_a_study_that_runs(project: Path) -> None:
    root = project / "results" / "my-study"
    claim(root)
    (root / "prefix_cache" / "host" / cache_key("any")).mkdir(parents=True)
    with FileLock(root / ".driver.lock"):
        done = study("clean", "--yes", cwd=project)
    assert done.returncode == 2 and "the study is running" in done.stderr.replace("\n", " ")
    assert (root / "prefix_cache" / "host" / cache_key("any")).is_dir()


def test_clean_leaves_a_cache_folder_of_ones_own(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = yaml.safe_load((project / "study.yaml").read_text())
    config["prefix_cache"] = {"folder": str(tmp_path / "mine")}
    (project / "own.yaml").write_text(yaml.safe_dump(config))
    done = study("clean", "own.yaml", "--yes", cwd=project)
    assert f"Not touched: the prefix cache in {tmp_path / 'mine'}" in done.stdout
    assert (tmp_path / "mine").is_dir()


def test_a_results_folder_that_cannot_be_written_is_one_message(project: Path) -> None:
    config = yaml.safe_load((project / "study.yaml").read_text())
    config |= {"name": "unwritable", "storage": {"results": "mine.jsonl/below-a-file"}}
    (project / "unwritable.yaml").write_text(yaml.safe_dump(config))
    done = study("run", "unwritable.yaml", cwd=project)
    assert done.returncode == 2, done.stderr
    assert "below-a-file" in done.stderr and "Traceback" not in done.stderr
