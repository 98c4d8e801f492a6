"""Trackers: what they show of a real study, offline; their troubles are not the study's."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from study import open_study
from study.basics.errors import ConfigError, UserError
from study.basics.paths import StudyPaths
from study.config.load import parse_config
from study.config.tracking_needs import MODULES, check_trackers
from study.launch.submit.requirements import pinned_requirements
from study.orchestration.observer import QuietObserver
from study.orchestration.preflight.local import check_tracking
from study.orchestration.runner import run_study
from study.orchestration.trackers.trackers import (
    TOOLS,
    MLflow,
    ShownTrial,
    TensorBoard,
    Tool,
    WandB,
)
from study.orchestration.trackers.tracking import REST_SECONDS, Tracking, scores
from study.protocol.extension import extension
from study.protocol.records import TrialOutcome, TrialRecord, TrialSpec
from study.protocol.results import StudyResults
from tests.helpers.ray_head import RayHead
from tests.helpers.real_studies import make_folder, run, write_study
from tests.helpers.results import make_config, make_trial

TRIAL = make_trial("lift", score=2.0, hyperparameters={"learning_rate": 1e-3, "group_size": 2})
NAME = TRIAL.spec.trial_id


class Followed(QuietObserver):
    """One trial followed by a tracker; what people are told is kept."""

    def __init__(self, tool: Tool) -> None:
        self.told: list[str] = []
        self.now = 0.0
        self._tracking = Tracking(self, tool, self._shown, lambda step: step(), lambda: self.now)

    def message(self, text: str) -> None:
        self.told.append(text)

    def _shown(self, spec: TrialSpec) -> ShownTrial:
        assert spec.trial_id == NAME
        return ShownTrial(spec, "mark", {"study": "s"})

    def start(self) -> None:
        self._tracking.started(TRIAL.spec)

    def measure(self, number: int) -> None:
        self._tracking.measured(TRIAL.spec, TRIAL.measurements[number])

    def finish(self) -> None:
        assert TRIAL.outcome is not None
        self._tracking.finished(TRIAL.spec, TRIAL.state, TRIAL.outcome)
        self._tracking.close()

    def leave(self) -> None:
        """The session ends before the trial does."""
        self._tracking.close()


def scalars(folder: Path) -> Callable[[str], list[tuple[int, float]]]:
    """A trial's curves in TensorBoard, by their names in its records."""
    events = EventAccumulator(str(folder)).Reload()
    return lambda name: [(e.step, e.value) for e in events.Scalars(f"ray/tune/{name}")]


def test_tensorboard_gets_curves_over_steps_and_the_trials_end(tmp_path: Path) -> None:
    followed = Followed(TensorBoard("s", "mark", StudyPaths(tmp_path)))
    followed.start()
    for number in range(5):
        followed.measure(number)
    followed.finish()
    found = scalars(tmp_path / "tensorboard" / NAME)
    expected = [(m.step, m.validation_loss) for m in TRIAL.measurements]
    assert found("validation_loss") == [(s, pytest.approx(v)) for s, v in expected]
    assert found("best_validation_loss") == [(100, pytest.approx(TRIAL.score))]
    assert followed.told == []


def test_a_trial_that_was_lost_and_tells_its_evaluations_again_is_shown_once(
    tmp_path: Path,
) -> None:
    followed = Followed(TensorBoard("s", "mark", StudyPaths(tmp_path)))
    followed.start()
    for number in (0, 1):
        followed.measure(number)
    followed.start()  # handed out again
    for number in (0, 1, 2):
        followed.measure(number)
    followed.leave()
    steps = [step for step, _ in scalars(tmp_path / "tensorboard" / NAME)("validation_loss")]
    assert steps == [m.step for m in TRIAL.measurements[:3]] and followed.told == []


def test_mlflow_has_one_run_for_a_trial_of_two_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    paths = StudyPaths(tmp_path)
    first, second = (Followed(MLflow("s", "mark", paths)) for _ in range(2))
    first.start()
    first.measure(0)
    first.leave()
    client = MlflowClient(f"sqlite:///{paths.mlflow}")
    (experiment,) = [client.get_experiment_by_name("s").experiment_id]
    (run,) = client.search_runs([experiment])
    assert run.info.status == "RUNNING"
    second.start()
    second.measure(1)
    second.finish()
    (run,) = client.search_runs([experiment])
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    assert [m.step for m in history] == [m.step for m in TRIAL.measurements[:2]]
    assert run.info.status == "FINISHED" and first.told == second.told == []


def test_wandb_keeps_trials_that_run_at_once_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    tool = WandB("s", "mark", StudyPaths(tmp_path))
    other = make_trial("full", score=3.0, hyperparameters={"learning_rate": 2e-3})
    shown = [ShownTrial(t.spec, "mark", {}) for t in (TRIAL, other)]
    tool.set_up()
    for trial in shown:
        tool.begin(trial)
    for step in (4, 8):
        for number, trial in enumerate(shown):
            trial.step = step
            tool.show(trial, {"validation_loss": float(step + number), "test_loss": float("nan")})
    for trial in shown:
        tool.end(trial)
    found, deadline = {}, time.monotonic() + 30
    while time.monotonic() < deadline and sum(map(len, found.values())) < 4:
        time.sleep(0.2)  # its own process writes the files
        for file in StudyPaths(tmp_path).wandb.glob("offline-run-*/run-*.wandb"):
            run, history = wandb_run(file)
            if run is not None:
                rows = [(row["_step"], row["validation_loss"]) for row in history]
                found[run.display_name] = rows
    assert found == {NAME: [(4, 4.0), (8, 8.0)], other.spec.trial_id: [(4, 5.0), (8, 9.0)]}


class Broken(TensorBoard):
    """Fails while it is out of order."""

    out_of_order = True

    def show(self, trial: ShownTrial, numbers: Mapping[str, float | None]) -> None:
        if self.out_of_order:
            raise ConnectionError("no route to host.\nlong trace")
        super().show(trial, numbers)


def test_a_tracker_that_fails_is_told_once_and_tried_again_after_a_rest(tmp_path: Path) -> None:
    tool = Broken("s", "mark", StudyPaths(tmp_path))
    followed = Followed(tool)
    followed.start()
    followed.measure(0)
    followed.measure(1)
    (told,) = followed.told
    assert "TensorBoard" in told and "no route to host" in told and "trace" not in told
    followed.now = REST_SECONDS + 1
    followed.measure(2)
    tool.out_of_order = False
    followed.measure(3)  # it rests again
    followed.now *= 3
    followed.measure(4)
    followed.finish()
    steps = [step for step, _ in scalars(tmp_path / "tensorboard" / NAME)("validation_loss")]
    assert steps == [TRIAL.measurements[4].step] and len(followed.told) == 1


def test_a_server_that_is_gone_fails_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing listens there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tool = MLflow("s", "mark", StudyPaths(tmp_path))
    assert "hidden" not in tool.where
    followed = Followed(tool)
    followed.start()
    followed.measure(0)
    followed.finish()
    (told,) = followed.told
    assert told.startswith("MLflow does not take the trials")
    assert "127.0.0.1:9" in told and "hidden" not in told + caplog.text


@pytest.mark.parametrize(
    ("variables", "login", "where"),
    [
        ({}, "", "offline, for `wandb sync`"),
        ({}, "api.wandb.ai", "project s"),
        ({}, "another.host", "offline, for `wandb sync`"),
        ({"WANDB_BASE_URL": "http://another.host:8080"}, "another.host", "project s"),
        ({"WANDB_API_KEY": "k", "WANDB_PROJECT": "mine"}, "", "project mine"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "", "offline, for `wandb sync`"),
    ],
)
def test_wandb_is_offline_unless_somebody_is_logged_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    login: str,
    where: str,
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    keys = tmp_path / "netrc"
    keys.write_text(f"machine {login} login user password secret\n" if login else "")
    keys.chmod(0o600)
    monkeypatch.setenv("NETRC", str(keys))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert WandB("s", "mark", StudyPaths(tmp_path)).where.startswith(where)


def test_only_numbers_that_are_there_are_shown() -> None:
    outcome = TrialOutcome("diverged", score=None, test_metrics={"accuracy": 0.5})
    found = {name: value for name, value in scores(outcome).items() if value is not None}
    assert found == {"test_accuracy": 0.5, "total_device_seconds": 0.0, "train_seconds": 0.0}


def test_another_winners_trial_of_the_same_name_is_another_run() -> None:
    other = make_trial("lift", hyperparameters={"learning_rate": 2e-3})
    shown = [ShownTrial(t.spec, "mark", {}) for t in (TRIAL, other, TRIAL)]
    assert shown[0].name == shown[1].name == NAME
    assert shown[0].trial_id == shown[2].trial_id != shown[1].trial_id
    assert ShownTrial(TRIAL.spec, "mark-2", {}).trial_id != shown[0].trial_id


def test_every_tracker_of_a_study_file_is_known() -> None:
    assert TOOLS.keys() == MODULES.keys()
    for name in TOOLS:
        assert make_config(tracking=[name]).tracking == [name]


def test_a_missing_package_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODULES, "wandb", "no_such_package")
    config = make_config(tracking=["wandb"], storage={"results": str(tmp_path / "results")})
    with pytest.raises(UserError, match=r"pip install 'finetune-study\[wandb\]'"):
        run_study(config, Silent())
    assert not (tmp_path / "results").exists()
    check_trackers(["tensorboard", "mlflow"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mlflow", ["mlflow"]),
        (["wandb", "mlflow", "wandb"], ["wandb", "mlflow"]),
        (None, []),
    ],
)
def test_one_line_of_a_study_file_is_enough(written: object, meant: list[str]) -> None:
    config = make_config(tracking=written)
    assert config.tracking == meant
    # Results do not depend on it: a study with results takes it up, or drops it.
    assert extension(make_config(), config) is None and extension(config, make_config()) is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("wanddb", "Did you mean `wandb`?"),
        (["tensorbord"], "Did you mean `tensorboard`?"),
        ({"mlflow": {"tracking_uri": "http://host"}}, "or a list of them"),
    ],
)
def test_what_is_no_tracker_is_refused(written: object, words: str) -> None:
    file = make_config().to_dict() | {"tracking": written}
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_config(file)


def test_check_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tracking=["tensorboard", "wandb"])
    assert check_tracking(config).found == "tensorboard, wandb: installed"
    monkeypatch.setitem(MODULES, "wandb", "no_such_package")
    with pytest.raises(UserError, match=r"finetune-study\[wandb\]"):
        check_tracking(config)


def test_a_job_on_a_cluster_installs_what_its_trackers_need() -> None:
    with_both = set(pinned_requirements(trackers=["mlflow", "wandb"])) - set(pinned_requirements())
    assert {pin.partition("==")[0] for pin in with_both} >= {"mlflow-skinny", "wandb"}


class Silent:
    """Is never told anything, since nothing starts."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


# One study with all three at once.


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> tuple[StudyResults, StudyPaths, str]:
    """Its results, its files, and what it printed."""
    path = write_study(
        make_folder(tmp_path_factory, "tracked"),
        arms={"full": {}},
        resources={"gpus_per_worker": 0, "cpus_per_worker": 0.5},
        tracking=["tensorboard", "mlflow", "wandb"],
    )
    with pytest.MonkeyPatch.context() as patched:
        for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
            patched.delenv(name, raising=False)
        patched.setenv("HOME", str(path.parent))  # where nobody is logged in
        output = run(path, **ray_head.environment)
    return open_study(path).results(), StudyPaths(path.parent / "results"), output


def curve(trial: TrialRecord) -> list[tuple[int, float]]:
    return [(m.step, m.validation_loss) for m in trial.measurements]


@pytest.mark.ray
def test_a_study_with_trackers_says_where_they_are(
    tracked: tuple[StudyResults, StudyPaths, str],
) -> None:
    output = " ".join(tracked[2].split())
    for label in ("TensorBoard: tensorboard --logdir", "MLflow: mlflow ui", "Biases: offline"):
        assert label in output
    assert "does not take the trials" not in output


@pytest.mark.ray
def test_tensorboard_shows_every_trial(tracked: tuple[StudyResults, StudyPaths, str]) -> None:
    results, paths, _ = tracked
    names = {trial.spec.trial_id for trial in results.trials}
    assert {folder.name for folder in paths.tensorboard.iterdir()} == names
    for trial in results.trials:
        folder = paths.tensorboard / trial.spec.trial_id
        found = scalars(folder)("validation_loss")
        assert found == [(s, pytest.approx(v)) for s, v in curve(trial)]
        content = EventAccumulator(str(folder)).Reload().PluginTagToContent("hparams")
        start = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
        shown = start.session_start_info.hparams
        assert "switchboard" not in shown and shown["arm"].string_value == "full"
        rate = trial.spec.hyperparameters["learning_rate"]
        assert shown["learning_rate"].number_value == pytest.approx(rate)


@pytest.mark.ray
def test_mlflow_has_a_run_per_trial(tracked: tuple[StudyResults, StudyPaths, str]) -> None:
    from mlflow.tracking import MlflowClient

    results, paths, _ = tracked
    client = MlflowClient(f"sqlite:///{paths.mlflow}")
    experiment = client.get_experiment_by_name("small")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {trial.spec.trial_id for trial in results.trials}
    for trial in results.trials:
        run, outcome = runs[trial.spec.trial_id], trial.outcome
        assert outcome is not None and run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [(m.step, m.value) for m in history] == curve(trial)
        assert run.data.params["learning_rate"] == str(trial.spec.hyperparameters["learning_rate"])
        assert run.data.params["dataset_size"] == "24"
        assert not {"switchboard", "task_id"} & run.data.params.keys()
        assert run.data.metrics.get("test_loss") == outcome.test_loss


@pytest.mark.ray
def test_an_mlflow_run_goes_on_when_its_trial_does(
    tracked: tuple[StudyResults, StudyPaths, str],
) -> None:
    from mlflow.tracking import MlflowClient

    results, paths, _ = tracked
    tool = MLflow("going-on", "mark", paths)
    shown = ShownTrial(results.trials[0].spec, "mark", {})
    for status in ("interrupted", "finished"):  # each a session of the study
        tool.set_up()
        shown.step += 4
        tool.begin(shown)
        tool.show(shown, {"validation_loss": 3.0})
        shown.status = status
        tool.end(shown)
    client = MlflowClient(f"sqlite:///{paths.mlflow}")
    (run,) = client.search_runs([client.get_experiment_by_name("going-on").experiment_id])
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    assert ([m.step for m in history], run.info.status) == ([4, 8], "FINISHED")


@pytest.mark.ray
def test_wandb_keeps_a_run_per_trial_to_send_later(
    tracked: tuple[StudyResults, StudyPaths, str],
) -> None:
    results, paths, _ = tracked
    runs = {}
    for file in paths.wandb.glob("offline-run-*/run-*.wandb"):
        run, history = wandb_run(file)
        runs[run.display_name] = run, history
    assert runs.keys() == {trial.spec.trial_id for trial in results.trials}
    for trial in results.trials:
        run, history = runs[trial.spec.trial_id]
        assert (run.project, run.run_group) == ("small", "full-n24")
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["learning_rate"] == trial.spec.hyperparameters["learning_rate"]
        assert not {"switchboard", "task_id"} & config.keys()
        found = [(row["_step"], row["validation_loss"]) for row in history if "train_loss" in row]
        assert found == curve(trial)


def wandb_run(file: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The run and its history in a file of Weights & Biases."""
    from wandb.proto.wandb_internal_pb2 import Record

    run, history = None, []
    for content in _records(file.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("run"):
            run = record.run
        elif record.HasField("history"):
            items = record.history.item
            row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
            history.append({"_step": record.history.step.num} | row)
    return run, history


def _records(data: bytes) -> Iterator[bytes]:
    """Of a LevelDB log: blocks of 32 KiB, records in pieces of crc, length and kind."""
    assert data[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # all of it, or its last piece
            yield whole
            whole = b""
