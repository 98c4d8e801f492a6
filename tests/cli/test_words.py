"""What the verbs say: of classifiers, of plain sweeps, of trials by their own names."""

from __future__ import annotations

import math
import re
from pathlib import Path

import click
import pytest
import typer
from rich.console import Console

from study.analysis.cells.base import Interval
from study.analysis.summary import summarise
from study.analysis.verdict.records import NextRuns
from study.cli.app import app
from study.cli.train import TrainingView, _tell
from study.cli.verdicts import told_runs
from study.cli.views import print_plan, print_trial
from study.orchestration.prepare import Prepared
from study.protocol.plan import ModelFacts, plan_trials
from study.protocol.records import BaseModelRecord, DataSummary
from study.protocol.results import StudyResults
from study.report import setting_of, verdict_card
from study.report.card import next_runs_table
from tests.helpers.commands import study, too_wide
from tests.helpers.final_runs import finished
from tests.helpers.results import make_config, make_results, with_metrics
from tests.helpers.stores import finished_study, write_store

DATA = DataSummary("9f86d081884c7d65", 9000, 400, 2000, 200, 1, 0, 0, 92.4, 61.8)


def shown(results: StudyResults, trial: str) -> str:
    console = Console(width=80)
    with console.capture() as capture, pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.cli.views.Console", lambda **_: console)
        print_trial(results, trial, 0)
    text = capture.get()
    assert "\u2026" not in text, "a cell is cut"
    return " ".join(text.split())


def test_show_has_a_classifiers_accuracy_and_macro_f1() -> None:
    results = with_metrics(make_results(sizes=[64]))
    trial = next(t for t in results.trials if t.spec.trial_id == "full-n64-r0-c0")
    assert trial.outcome is not None and trial.best is not None
    told = shown(results, "full-n64-r0-c0")
    for metrics in (trial.best.validation_metrics, trial.outcome.test_metrics):
        assert f", accuracy {metrics['accuracy']:.4f}, macro-F1 {metrics['macro_f1']:.4f}" in told
    assert "val acc F1 lr" in told
    assert "acc" not in shown(make_results(sizes=[64]), "full-n64-r0-c0")


@pytest.mark.parametrize("replicate", [0, 2])
def test_a_replicate_is_called_as_in_its_trials_name(replicate: int) -> None:
    told = shown(make_results(sizes=[64]), f"full-n64-r{replicate}-s0")
    assert f"replicate {replicate}, search" in told


def test_train_says_how_well_a_classifier_does_and_what_it_must_beat() -> None:
    console = Console(width=120)
    _, run = finished(test_metrics={"accuracy": 0.91, "macro_f1": 0.88})
    config = run.config.model_copy(update={"task": "sequence-classification"})
    classifier = with_metrics(make_results(sizes=[64])).trials[0]
    with console.capture() as capture, pytest.MonkeyPatch.context() as patch:
        view = TrainingView(console, config.task)
        view.started(classifier.spec, BaseModelRecord(0.69, 0.7, None))
        view.measured(classifier.spec, classifier.measurements[0])
        patch.setattr("study.cli.train.Console", lambda **_: console)
        _tell(type(run)(**{**vars(run), "config": config}), "/somewhere")
    told = capture.get()
    assert "Class prior: validation 0.6900 test 0.7000" in told
    first = classifier.measurements[0].validation_metrics
    assert f"accuracy {first['accuracy']:.4f}  macro-F1 {first['macro_f1']:.4f}" in told
    assert "test 4.2000, accuracy 0.9100, macro-F1 0.8800" in told
    assert "warning" not in told


def test_train_warns_of_a_model_that_learned_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _, run = finished(test_loss=4.7)
    _tell(run, "/somewhere")
    assert "its test loss of 4.7000 is not below the base model's 4.6300" in " ".join(
        capsys.readouterr().out.split()
    )


def test_one_of_a_kind_is_no_plural_in_a_plan() -> None:
    config = make_config(
        arms=["full"], sizes=[64], trials=1, replicates=1, confirm_seeds=1,
        training={"global_batch_size": 1, "micro_batch_size_per_worker": 1},
    )  # fmt: skip
    plan = plan_trials(config, ModelFacts(1))
    console = Console(width=200)
    with console.capture() as capture, pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.cli.views.Console", lambda **_: console)
        print_plan(Prepared(plan, DATA, ()), "study.yaml")
    told = " ".join(capture.get().split())
    assert "1 sobol trial x 1 replicate per cell" in told and "1 confirm seed " in told
    nouns = "trials|replicates|seeds|examples|workers|blocks|duplicates"
    assert not re.findall(rf"\b1 (?:sobol |confirm )?(?:{nouns})\b", told)


def test_a_chance_of_a_verdict_is_the_same_on_the_terminal_and_in_the_report() -> None:
    for power in (0.2199, 0.995, 0.004):
        runs = NextRuns("confirm.seeds: 3", "more", 1, None, 0.2, 0.1, power)
        in_report = next_runs_table((runs,)).rows[0][-1]
        assert told_runs(runs).endswith(f"chance of a verdict {in_report}")
        assert "; 1 trial;" in told_runs(runs)


def test_an_interval_that_may_be_any_ratio_is_not_shown() -> None:
    results = make_results()
    verdict = summarise(results).verdicts[0]
    setting = setting_of(results, summarise(results))
    told = {}
    for high in (4.0, 129.0):
        wide = Interval(3.13, 0.5, high)
        made = type(verdict)(**{**vars(verdict), "wall_time": wide, "cost": wide, "memory": wide})
        card = verdict_card(made, setting)
        facts = " ".join(text for _, text in card.facts)
        told[high] = facts + " ".join(tile.detail for tile in card.numbers)
    assert "3.13 times the wall time (95 % interval 0.50 to 4.00)" in told[4.0]
    assert "3.13 times the wall time (too few runs for an interval)" in told[129.0]
    assert "129" not in told[129.0] and told[129.0].count("too few runs for an interval") == 5


def commands(
    command: click.Command | None = None, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", {})
    found = [item for name, sub in inner.items() for item in commands(sub, (*path, name))]
    return [(path, command), *found]


@pytest.mark.parametrize(
    ("path", "command"), commands(), ids=[" ".join(path) or "study" for path, _ in commands()]
)
def test_help_shows_every_word_of_it(
    path: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Markdown takes `<study>` for HTML, and leaves it out."""
    from typer.testing import CliRunner

    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    printed = CliRunner().invoke(app, [*path, "--help"]).stdout
    words = " ".join(re.sub(r"[│|*`]", " ", printed).split())
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        if text and not getattr(parameter, "hidden", False):
            assert " ".join(re.sub(r"[*`|]", " ", text).split()) in words, text


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a plain sweep, nothing of which learned anything."""
    folder = tmp_path_factory.mktemp("swept")
    config = make_config(
        arms=["full"], sizes=[500], replicates=1, trials=4, confirm_seeds=0,
        storage={"results": str(folder)},
    )  # fmt: skip
    results = finished_study(config)
    write_store(results).keep_base(BaseModelRecord(2.0, 2.0, None))
    return folder


def test_status_and_report_of_a_sweep_end_with_its_best_configurations(
    swept: Path, tmp_path: Path
) -> None:
    config = make_config(arms=["full"], sizes=[500], replicates=1, trials=4, confirm_seeds=0)
    best = min(finished_study(config).trials, key=lambda trial: trial.score or math.inf)
    for done in (
        study("status", str(swept), cwd=tmp_path),
        study("report", str(swept), "--output", str(tmp_path / "out"), cwd=tmp_path),
    ):
        assert done.returncode == 0, done.stderr
        told = " ".join(done.stdout.split())
        assert f"{best.spec.trial_id} validation {best.score:.4f} learning_rate" in told
        assert "seeds alone may make" in told and "To compare full and LIFT" in told
        assert "Not met" not in told
        assert too_wide(done.stdout, tmp_path) == []


def test_best_warns_on_standard_error_of_what_learned_nothing(swept: Path, tmp_path: Path) -> None:
    done = study("best", str(swept), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: It did not learn the task: its validation loss of ")
    assert "is not below the base model's 2.0000." in done.stderr
    assert "warning:" not in done.stdout and "It did not learn the task" in done.stdout
