"""What `study plan` says a study can detect, and how `study report` answers what it is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from study import plan_study as plan_study_of
from study.analysis.summary import summarise
from study.cli.detection import detection_warnings, predict, print_detection
from study.cli.verdicts import print_verdicts
from study.config.load import load_config
from study.orchestration.prepare import Prepared
from study.protocol.plan import ModelFacts, full_steps, plan_trials
from study.protocol.records import DataSummary
from study.protocol.results import StudyResults
from study.store.study_store import StudyStore
from tests.helpers.commands import study, too_wide
from tests.helpers.costs import step_costs
from tests.helpers.results import make_config, make_results

DATA = DataSummary("9f86d081884c7d65", 9000, 400, 2000, 200, 0, 0, 0, 92.4, 61.8)


def prepared(test_examples: int = 2000, **shape: object) -> Prepared:
    config = make_config(**shape)  # type: ignore[arg-type]
    data = replace(DATA, test=test_examples)
    return Prepared(plan_trials(config, ModelFacts(4)), data, ())


def told(plan: Prepared, results: StudyResults | None = None) -> str:
    console = Console(width=80, highlight=False, markup=False)
    with console.capture() as capture:
        print_detection(console, plan, results)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_a_plan_that_can_answer_says_so_without_warning_or_advice() -> None:
    text = told(prepared(sizes=(250, 500, 1000, 2000, 4000), replicates=5, trials=8))
    assert "1,000 (middle)" in text and "4,000 (largest)" in text
    assert "0.005 nats over data subsets and 0.005 over seeds" in text
    assert "from 2,000 examples" in text
    assert "500 trials; device-hours are predicted by `study check --probe`" in text
    assert "warning" not in text and "advice" not in text


def test_few_search_trials_are_warned_of_with_the_number_that_would_do() -> None:
    shape = {"sizes": (250, 500, 1000, 2000, 4000), "replicates": 9}
    warnings = detection_warnings(predict(prepared(**shape, trials=2), None))
    assert len(warnings) == 1 and "A search of 2 trials leaves its winner" in warnings[0]
    assert "About 8 trials would do (search.trials)." in warnings[0]
    assert detection_warnings(predict(prepared(**shape, trials=8), None)) == []
    coarse = {"decision": {"rho": 0.1}}
    assert detection_warnings(predict(prepared(**shape, trials=2, **coarse), None)) == []
    # What is on record replaces what was assumed: losses over 0.4 nats instead of 0.1.
    results = make_results(trials=4)
    (warning,) = detection_warnings(predict(prepared(**shape, trials=8), results))
    assert "A search of 8 trials leaves" in warning
    fixed = {"learning_rate": 3e-5, "warmup_ratio": 0.0, "max_grad_norm": 1.0}
    search = {"space": {"shared": fixed}, "trials": 1, "replicates": 9}
    plan = prepared(sizes=(250, 500, 1000, 2000, 4000), search=search)
    assert detection_warnings(predict(plan, None)) == [], "nothing is drawn"


def test_the_noise_that_is_assumed_is_in_nats() -> None:
    """Who cares about larger differences is likelier to be told of them."""
    shape = {"sizes": (250, 500, 1000, 2000), "replicates": 3, "trials": 8}
    finer, coarser = (
        predict(prepared(**shape, decision={"rho": rho}), None).largest.claim
        for rho in (0.01, 0.02)
    )
    assert finer < 0.4 and coarser > 0.7
    text = told(prepared(**shape, decision={"rho": 0.02}))
    assert "0.005 nats over data subsets and 0.005 over seeds" in text
    labels = {"task": "sequence-classification"}
    assert "a classifier with few examples may have several times that" in told(
        prepared(**shape, **labels)
    )


def test_a_plan_that_cannot_answer_names_the_gate_and_the_cheapest_change() -> None:
    plan = prepared(sizes=(250, 1000), replicates=2)
    text = told(plan)
    assert "No verdict at 500 examples, whatever the runs show: 2 sizes from 250 to 1,000" in text
    assert "0 % 0 % 0 %" in text
    assert "advice: With dataset_sizes: [125, " in text
    advice = predict(plan, None).advice
    assert advice is not None and f"{advice.trials} more trials" in text


def test_a_small_test_split_is_warned_of_with_the_number_that_would_do() -> None:
    plan = prepared(test_examples=100, replicates=6, trials=8)
    (warning,) = detection_warnings(predict(plan, None))
    assert "predicted at 0.0085 nats, above rho / 4 (0.0025)" in warning
    assert "About 1,200 test examples would do" in warning and "it has 100" in warning
    assert "so many test examples" in told(plan)


def test_results_on_record_update_the_noise_and_the_cost() -> None:
    results = make_results(progress=0.9)
    text = told(prepared(replicates=4), results)
    assert "by the replicates on record" in text
    assert "device-hours (full" in text and "left to run" in text
    assert predict(prepared(), results).noise.freedom > 0


def test_one_arm_has_a_cost_and_nothing_to_detect() -> None:
    text = told(prepared(arms=("full",)))
    assert "Cost 72 trials" in text and "detect" not in text


def test_study_plan_prints_what_it_can_detect(project: Path) -> None:
    done = study("plan", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "What this study can detect" in done.stdout
    assert "About 1,200 test examples would do" in " ".join(done.stdout.split())
    assert too_wide(done.stdout, project) == []


def test_study_plan_reckons_with_the_probe_on_record(project: Path) -> None:
    settings = yaml.safe_load((project / "study.yaml").read_text())
    (project / "probed.yaml").write_text(yaml.safe_dump(settings | {"name": "probed"}))
    config = load_config(project / "probed.yaml")
    store = StudyStore.create(config)
    probe = step_costs(full_step=0.6, lift_step=0.1)
    store.set_info("probe", probe.to_dict())
    prepared_again = plan_study_of(config)
    assert prepared_again.plan.model.probe == probe, "from Python as well"
    steps = {s.steps for s in prepared_again.plan.search if s.arm == "lift" and s.size == 96}
    (ratio,) = {n / full_steps(config, 96) for n in steps}
    assert ratio > 4, "LIFT's steps are that much cheaper than the cost model has it"
    done = study("plan", "probed.yaml", cwd=project)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0 and "predicted; measured before the first trial" not in text
    for count in steps:
        assert f" {count} " in text
    assert "device-hours" in text and "9 of 10 such studies: " in text


def test_verdicts_are_printed_one_per_asked_size_with_what_to_run_next() -> None:
    results = make_results()
    console = Console(width=80, highlight=False, markup=False)
    with console.capture() as capture:
        print_verdicts(console, results, summarise(results, (100, 300)))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "For 100 training examples, at equal device seconds" in text
    assert "For 300 training examples, at equal device seconds" in text


def test_report_answers_the_sizes_and_the_memory_it_is_asked_about(
    finished: Path, tmp_path: Path
) -> None:
    done = study(
        "report", str(finished), "--output", str(tmp_path), "--dataset-size", "100",
        "--dataset-size", "120", "--memory-limit", "0.5", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "For 100 training examples" in text and "For 120 training examples" in text
    assert "Not met: Dataset sizes" in text and "Cheapest next runs:" in text
    assert too_wide(done.stdout, tmp_path) == []
    for name in ("report.html", "report.md", "report.json"):
        assert f"Wrote {tmp_path / name}" in done.stdout and (tmp_path / name).is_file()
    assert json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--dataset-size", "0"),
        ("--dataset-size", "-5"),
        ("--dataset-size", "many"),
        ("--dataset-size", "2.5"),
        ("--memory-limit", "0"),
        ("--memory-limit", "-1"),
        ("--memory-limit", "nan"),
        ("--memory-limit", "inf"),
        ("--memory-limit", "80GB"),
    ],
)
def test_a_size_or_limit_that_is_none_is_one_message_and_exit_code_2(
    tmp_path: Path, option: str, value: str
) -> None:
    done = study("report", f"{option}={value}", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert f"Invalid value for '{option}': {value} is no" in done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_help_of_report_has_its_defaults_and_an_example(tmp_path: Path) -> None:
    text = " ".join(study("report", "--help", cwd=tmp_path).stdout.replace("│", " ").split())
    assert "study report --dataset-size 3000 --memory-limit 80" in text
    assert "(default: decision.memory_limit_gib)" in text
    assert "(default: decision.dataset_size, else the largest size)" in text


def test_a_plan_without_confirm_runs_is_still_planned(project: Path) -> None:
    config = yaml.safe_load((project / "study.yaml").read_text())
    config |= {"name": "sweep", "dataset_sizes": 96, "confirm": {"seeds": 0}}
    (project / "sweep.yaml").write_text(yaml.safe_dump(config))
    done = study("plan", "sweep.yaml", cwd=project)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Verdict none without confirm runs (confirm.seeds); configurations are ranked" in text
    assert "detect" not in text and "No verdict at" not in text
