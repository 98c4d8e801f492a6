"""Whether a study runs: what its driver says all along, and what readers make of its silence."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import study.store.heartbeat
from study.analysis.summary import summarise
from study.basics.remote import RemoteFolder
from study.cli.app import app
from study.cli.live import LiveView
from study.config.load import StudyConfig
from study.orchestration.ledger.sampling import begin_trial
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from study.report.text import banner
from study.store.heartbeat import beating, is_alive, sign_of_life
from study.store.opening import read_study
from study.store.published import SharedResults, read_results
from study.store.study_store import StudyStore
from tests.helpers.forked import METHOD
from tests.helpers.results import make_config
from tests.helpers.stores import measurement

TRIAL = "full-n64-r0-s0"


def config_at(results: str) -> StudyConfig:
    return make_config(
        sizes=(64,), replicates=1, trials=2, confirm_seeds=1, storage={"results": results}
    )


def drive(config: StudyConfig, begun: str) -> None:
    """What a driver has on record once a trial runs; it goes on until it is killed."""
    store = StudyStore.create(config)
    store.set_info("num_blocks", 4)
    plan = plan_trials(config, ModelFacts(4))
    with store.session():
        spec = begin_trial(plan, store, plan.search[0])
        store.report(spec, measurement(10, 2.0))
        if config.results_url is not None:
            shared = SharedResults(config, print)
            shared._write_lease()
            shared.publish(store.results, now=True)
        Path(begun).touch()
        time.sleep(600)


@contextmanager
def driver(config: StudyConfig, folder: Path) -> Iterator[int]:
    """Its process id; it is killed at the end of the block."""
    begun = folder / "begun"
    process = multiprocessing.get_context(METHOD).Process(target=drive, args=(config, str(begun)))
    process.start()
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def state(results: StudyResults) -> TrialState:
    return next(trial.state for trial in results.trials if trial.spec.trial_id == TRIAL)


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.store.heartbeat, "_process_space", lambda: "of another machine")


def test_a_trial_whose_driver_was_killed_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results"
    with driver(config_at(str(folder)), tmp_path) as pid:
        assert state(read_study(folder)) is TrialState.RUNNING
        assert f"running {TRIAL}: step 10/" in status(folder)
        os.kill(pid, signal.SIGKILL)
    results = read_study(folder)
    assert state(results) is TrialState.PAUSED
    assert f"paused {TRIAL}: step 10/" in status(folder) and "running" not in status(folder)
    assert "goes on when the study is run or submitted again" in status(folder)
    shown = invoke("show", TRIAL, str(folder))
    assert "PAUSED: no driver runs it; it goes on when the study is run again" in shown
    assert "RUNNING" not in shown
    summary = summarise(results)
    assert (summary.counts.running, summary.counts.paused) == (0, 1)
    assert "0 running, 1 paused until the study is run again" in banner(summary)
    assert "is paused. It is booked as failed" in invoke("stop", TRIAL, str(folder))
    assert "PAUSED" in invoke("export", str(folder))

    # Where its process ids mean nothing, it is gone once it has been silent for long enough.
    on_another_machine(monkeypatch)
    assert state(read_study(folder)) is TrialState.RUNNING
    monkeypatch.setattr(study.store.heartbeat, "SILENT_SECONDS", 0.0)
    assert state(read_study(folder)) is TrialState.PAUSED


def test_a_published_trial_whose_driver_was_killed_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_CACHE", str(tmp_path / "cache"))
    url = f"file://{tmp_path}/bucket"
    with driver(config_at(url), tmp_path):
        assert state(read_results(url)) is TrialState.RUNNING
    assert state(read_results(url)) is TrialState.PAUSED
    on_another_machine(monkeypatch)
    assert state(read_results(url)) is TrialState.RUNNING, "nobody can tell yet"
    RemoteFolder(url).remove("driver.json")  # as one does that ends by itself
    assert state(read_results(url)) is TrialState.PAUSED


def test_a_driver_that_ends_by_itself_says_so(tmp_path: Path) -> None:
    config = config_at(str(tmp_path))
    plan, store = plan_trials(config, ModelFacts(4)), StudyStore.create(config)
    store.set_info("num_blocks", 4)
    with pytest.raises(KeyboardInterrupt), store.session():
        begin_trial(plan, store, plan.search[0])
        assert state(store.results()) is TrialState.RUNNING
        raise KeyboardInterrupt
    assert state(store.results()) is state(read_study(tmp_path)) is TrialState.PAUSED


def test_what_an_earlier_driver_left_is_paused_until_this_one_takes_it_up(tmp_path: Path) -> None:
    config = config_at(str(tmp_path))
    plan, first = plan_trials(config, ModelFacts(4)), StudyStore.create(config)
    first.set_info("num_blocks", 4)
    begin_trial(plan, first, plan.search[0])
    second = StudyStore.create(config)
    assert state(second.results()) is state(read_study(tmp_path)) is TrialState.PAUSED
    assert f"1 running 1 paused {plan.trials - 2} waiting" in rendered(plan, second.results())
    begin_trial(plan, second, plan.search[0])
    assert state(second.results()) is state(read_study(tmp_path)) is TrialState.RUNNING


def rendered(plan: StudyPlan, results: StudyResults) -> str:
    """The live view while the study's second trial runs."""
    console = Console(file=io.StringIO(), width=100)
    view = LiveView(console)
    view.planned(plan, results.trials)
    view.started(plan.search[1])
    console.print(view._render())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(shown.split())


def test_a_sign_of_life_that_is_no_such_thing_is_none() -> None:
    sign = sign_of_life()
    assert is_alive(sign)
    for damage in (None, {}, [], "x", sign | {"time": "now"}, sign | {"pid": None}):
        assert not is_alive(damage)
    assert not is_alive(sign | {"time": time.time() - study.store.heartbeat.SILENT_SECONDS - 1})
    assert json.loads(json.dumps(sign)) == sign


def test_the_heart_beats_while_the_block_runs_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study.store.heartbeat, "BEAT_SECONDS", 0.01)
    beats = list[float]()
    with beating(lambda: beats.append(time.monotonic())):
        while len(beats) < 3:
            time.sleep(0.01)
    told = len(beats)
    time.sleep(0.05)
    assert len(beats) == told


def invoke(*arguments: str) -> str:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    return " ".join(ran.output.split())


def status(folder: Path) -> str:
    return invoke("status", str(folder))
