"""A trial stopped at any moment and taken up again is the trial that was never stopped."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from study.config import StudyConfig
from study.records import Measurement, Stage, TrialSpec
from study.training.checkpoint_files import CheckpointFolder
from tests.data import task_rows, write_jsonl
from tests.models import tiny_model_folder
from tests.training.workers import run_workers

STEPS = 6
SLOW_WRITE = 1e4
"""Seconds, not waited for: no trial here takes nearly as long."""
EVALUATIONS = (1, 3, 4, 6)  # LIFT trains two phases of 3 steps: inside and at the end of each
NOT_COMPARED = {
    "prefix_cache",  # what it did depends on what earlier trials left in it
    "seconds",
    "device_seconds",
    "checkpoint_device_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "switch_seconds",
    "train_seconds",
}


class Killed(Exception):
    """Stands for whatever ends the processes of a trial."""


def study_of(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": "checkpoints",
        "model": {"path": str(folder / "tiny-llama-0"), "dropout": 0.0},
        "data": {
            "train": str(folder / "mine.jsonl"),
            "prompt": "{question}",
            "response": "{answer}",
            "retention_size": 6,
        },
        "dataset_sizes": [24],
        "arms": {"full": {}, "lift": {"group_size": 2}},
        "comparison": "tokens",
        "training": {
            "steps": STEPS,
            "global_batch_size": 8,
            "micro_batch_size_per_worker": 2,
            "sequence_length": 48,
            "weight_decay": 0.01,  # two parameter groups
            "checkpoint_share": 1.0,
        },
        "storage": {"results": str(folder / "results")},
        # Tiny parameters would all stay whole, and stage 3 would be tested in name only.
        "zero": {"overrides": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}},
    }
    for section, values in sections.items():
        config[section] = config.get(section, {}) | values
    return config


def spec_of(arm: str = "lift", stage: Stage = Stage.SEARCH, rate: float = 5e-3) -> TrialSpec:
    return TrialSpec(
        trial_id=f"{arm}-n24-r0-s0",
        arm=arm,
        size=24,
        replicate=0,
        stage=stage,
        index=0,
        seed=3,
        subset_seed=4,
        order_seed=5,
        steps=STEPS,
        evaluation_steps=EVALUATIONS,
        hyperparameters={"learning_rate": rate, "warmup_ratio": 0.2, "max_grad_norm": 0.5},
    )


@dataclass(frozen=True)
class Case:
    """A trial, the evaluations after which it is killed, one after the other, and the numbers of
    steps after which it is paused then."""

    config: dict[str, Any]
    spec: TrialSpec
    kills: tuple[int, ...] = (4,)
    pauses: tuple[int, ...] = ()


def cases(folder: Path) -> dict[str, Case]:
    found = {}
    for stage in range(4):
        for precision in ("fp32", "bf16"):
            config = study_of(folder, zero={"stage": stage}, training={"precision": precision})
            kills = EVALUATIONS if precision == "fp32" else (1, 4)
            found[f"lift, stage {stage}, {precision}"] = Case(config, spec_of(), kills)
            found[f"full, stage {stage}, {precision}"] = Case(config, spec_of("full"))
        # Before the first step, between evaluations, between phases, twice in a row.
        found[f"paused, stage {stage}"] = Case(config, spec_of(), (), (0, 2, 2, 3, 5))
    for stage in (2, 3):
        # Far too large a rate: the best evaluation is an early one, and its weights are scored.
        found[f"confirm, stage {stage}"] = Case(
            study_of(folder, zero={"stage": stage}), spec_of(stage=Stage.CONFIRM, rate=3.0)
        )
        found[f"paused confirm, stage {stage}"] = Case(
            study_of(folder, zero={"stage": stage}),
            spec_of(stage=Stage.CONFIRM, rate=3.0),
            (),
            (0, 2, 5),
        )
        found[f"offloaded optimizer, stage {stage}"] = Case(
            study_of(folder, zero={"stage": stage, "offload_optimizer": "cpu"}), spec_of()
        )
    slowing = {"lift": {"group_size": 2, "cumulative": True, "group_lr_decay": 0.5}}
    for stage in range(4):
        config = study_of(folder, zero={"stage": stage}, arms=slowing)
        found[f"groups at rates of their own, stage {stage}"] = Case(config, spec_of())
    whole = study_of(folder, zero={"stage": 3, "overrides": {}})
    found["whole small parameters, stage 3"] = Case(whole, spec_of())
    found["dropout"] = Case(study_of(folder, model={"dropout": 0.2}), spec_of(), (4,), (5,))
    found["sgd"] = Case(study_of(folder, training={"optimizer": "sgd"}), spec_of("full"))
    patient = study_of(folder, training={"patience": 1})
    found["patience"] = Case(patient, spec_of("full", rate=3.0), (1, 3))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from study.training.data import prepare_data
    from study.training.model import load_tokenizer

    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(80))
    config = StudyConfig.model_validate(study_of(folder))
    prepare_data(config, folder / "data", load_tokenizer(config.model))
    return folder


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items() if k not in NOT_COMPARED}
    return [comparable(v) for v in value] if isinstance(value, list | tuple) else value


class Runs:
    """Runs one trial on one rank, as often as asked."""

    def __init__(
        self, folder: Path, config: dict[str, Any], spec: TrialSpec, rank: int, world_size: int
    ) -> None:
        import torch

        from study.training.placement import Placement
        from study.training.tokenised import StudyData

        self.config, self.spec = StudyConfig.model_validate(config), spec
        self.data = StudyData.open(folder / "data")
        self.placement = Placement(torch.device("cpu"), rank, world_size)

    def run(
        self, checkpoints: Path | None, kill_at: int = 0, pause_after: int | None = None
    ) -> dict[str, Any]:
        """What the trial reported, and its outcome and final weights unless it was killed when it
        reported step `kill_at`, or paused by one rank after step `pause_after`."""
        from study.training.checksum import checksum
        from study.training.loop import Signal, _Trial
        from study.training.weights import full_state

        reported: list[dict[str, Any]] = []

        def report(measurement: Measurement) -> None:
            reported.append(measurement.to_dict())
            if measurement.step == kill_at:
                raise Killed

        def signal() -> Signal:
            wanted = self.placement.rank == 1 and trial.progress.step == pause_after
            return Signal.PAUSE if wanted else Signal.GO_ON

        trial = _Trial(
            self.config, self.spec, self.data, self.placement, report, checkpoints, signal
        )
        try:
            outcome = trial.run().to_dict()
        except Killed:
            hooks = sum(len(p._backward_hooks or ()) for p in trial.model.parameters())
            return {"reported": reported, "hooks": hooks}
        weights = {name: checksum(tensor) for name, tensor in full_state(trial.model).items()}
        return {"reported": reported, "outcome": outcome, "weights": weights}


def interrupted(rank: int, world_size: int, folder: Path, jobs: dict[str, Case]) -> dict[str, Any]:
    """Each trial uninterrupted, and killed at its evaluations in turn."""
    answers = {}
    for name, case in jobs.items():
        runs = Runs(folder, case.config, case.spec, rank, world_size)
        checkpoints = folder / "running" / name
        answers[name] = {
            "whole": runs.run(None),
            "killed": [runs.run(checkpoints, kill_at=step) for step in case.kills],
            "paused": [runs.run(checkpoints, pause_after=step) for step in case.pauses],
            "resumed": runs.run(checkpoints),
            "left": checkpoints.exists(),
        }
    return answers


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return run_workers(functools.partial(interrupted, folder=folder, jobs=cases(folder)), 2)


@pytest.mark.parametrize("name", cases(Path()))
def test_a_killed_trial_ends_as_if_it_had_never_been_killed(
    found: list[dict[str, Any]], name: str
) -> None:
    for answer in (worker[name] for worker in found):
        whole, resumed = answer["whole"], answer["resumed"]
        assert comparable(resumed["reported"]) == comparable(whole["reported"])
        assert comparable(resumed["outcome"]) == comparable(whole["outcome"])
        assert resumed["weights"] == whole["weights"]
        assert not answer["left"]


def test_a_paused_trial_says_so_and_makes_no_more_steps(found: list[dict[str, Any]]) -> None:
    for answer in (worker["paused, stage 3"] for worker in found):
        for step, run in zip((0, 2, 2, 3, 5), answer["paused"], strict=True):
            outcome = run["outcome"]
            assert (outcome["status"], outcome["reason"]) == ("interrupted", f"after step {step}")
            assert [m["step"] for m in run["reported"]] == [s for s in EVALUATIONS if s <= step]


def test_each_run_reports_the_evaluations_before_it_again_and_makes_the_next(
    found: list[dict[str, Any]],
) -> None:
    answer = found[1]["lift, stage 3, fp32"]
    steps = [[m["step"] for m in run["reported"]] for run in answer["killed"]]
    assert steps == [[1], [1, 3], [1, 3, 4], [1, 3, 4, 6]]
    # Reported as they were, timings too: the steps before a kill are not made again.
    last = answer["resumed"]["reported"]
    assert [run["reported"][-1] for run in answer["killed"]] == last
    assert [m["seconds"] for m in last] == sorted(m["seconds"] for m in last)


def test_a_trial_that_dies_leaves_no_hook_on_its_model(found: list[dict[str, Any]]) -> None:
    for answer in (answer for answer in found[0].values() if answer["killed"]):
        assert [run["hooks"] for run in answer["killed"] if "hooks" in run] != []
        assert all(run.get("hooks", 0) == 0 for run in answer["killed"])


def test_the_cases_reach_what_they_are_there_for(found: list[dict[str, Any]]) -> None:
    whole = {name: answer["whole"] for name, answer in found[0].items()}
    for stage in (2, 3):
        outcome = whole[f"confirm, stage {stage}"]["outcome"]
        assert outcome["best_step"] < STEPS and outcome["test_loss"] is not None
    dropped, plain = whole["dropout"], whole["lift, stage 2, fp32"]
    assert dropped["reported"][0]["train_loss"] != plain["reported"][0]["train_loss"]
    assert whole["patience"]["outcome"]["status"] == "stopped_early"
    assert len(whole["patience"]["reported"]) < len(EVALUATIONS)
    assert whole["full, stage 2, bf16"]["weights"] != whole["full, stage 2, fp32"]["weights"]


@contextmanager
def slow_disk() -> Iterator[None]:
    """Each checkpoint takes SLOW_WRITE by the clock."""
    clock, publish, late = time.perf_counter, CheckpointFolder._publish, 0.0

    def slow(*arguments: Any) -> None:
        nonlocal late
        late += SLOW_WRITE
        publish(*arguments)

    with (
        mock.patch("time.perf_counter", lambda: clock() + late),
        mock.patch.object(CheckpointFolder, "_publish", slow),
    ):
        yield


def cached(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """What the prefix cache said it did, in trials that each begin with an empty one."""
    answers = {}
    for stage in (2, 3):
        for kills in ((), (1, 3), EVALUATIONS[:-1]):
            name = f"stage {stage}, killed {len(kills)} times"
            own = folder / "caches" / name
            config = study_of(
                folder,
                zero={"stage": stage},
                arms={"lift": {"group_size": 1}},
                prefix_cache={"folder": str(own), "min_free_gib": 0},
            )
            runs = Runs(folder, config, spec_of(), rank, world_size)
            for step in kills:
                runs.run(own / "running", kill_at=step)
            answers[name] = runs.run(own / "running")["outcome"]["prefix_cache"]
    return answers


@pytest.fixture(scope="module")
def cache_uses(folder: Path) -> list[dict[str, Any]]:
    return run_workers(functools.partial(cached, folder=folder), 2)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_resumed_trial_tells_what_its_prefix_cache_did_before_too(
    cache_uses: list[dict[str, Any]], stage: int
) -> None:
    for uses in cache_uses:
        whole = uses[f"stage {stage}, killed 0 times"]
        assert whole["hits"] > 0 < whole["misses"]
        for times in (2, 3):
            resumed = uses[f"stage {stage}, killed {times} times"]
            for what in ("status", "hits", "misses", "bytes_written"):
                assert resumed[what] == whole[what], what
            # It paid for all it read: what it wrote before it was killed is its own.
            assert resumed["cold_seconds"] == whole["cold_seconds"] == 0
            assert resumed["fill_seconds"] > 0


def one_worker(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """Trials that find a checkpoint they cannot use, or nowhere to write one."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("study").addHandler(handler)
    logging.getLogger("study").setLevel(logging.INFO)
    config, spec = study_of(folder), spec_of()
    runs = Runs(folder, config, spec, rank, world_size)
    other = Runs(folder, config, spec_of(rate=4e-3), rank, world_size)
    place = folder / "one" / "trial"
    answers: dict[str, Any] = {}

    def after(name: str, change: Any, second: Runs, folder: Path = place) -> None:
        shutil.rmtree(place, ignore_errors=True)
        messages.clear()
        runs.run(folder, kill_at=4)
        change()
        answers[name] = {"run": second.run(folder), "log": list(messages)}

    def truncate(name: str) -> None:
        (file,) = place.glob(f"step-*/{name}")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])

    def overwrite_format() -> None:
        (file,) = place.glob("step-*/rank0.json")
        content = json.loads(file.read_text())
        content["identity"]["format"] += 1
        file.write_text(json.dumps(content))

    after("nothing happens", lambda: None, runs)
    after("tensors cut", lambda: truncate("rank0.safetensors"), runs)
    after("common tensors cut", lambda: truncate("common.safetensors"), runs)
    after("document cut", lambda: truncate("rank0.json"), runs)
    after("other format", overwrite_format, runs)
    after("other trial", lambda: None, other)
    blocked = folder / "a file"
    blocked.write_text("no folder can be made below this")
    after("nowhere to write", lambda: None, runs, blocked / "trial")
    answers["whole"] = runs.run(None)
    answers["other whole"] = other.run(None)
    none = Runs(folder, study_of(folder, training={"checkpoint_share": 0.0}), spec, rank, 1)
    none.run(place, kill_at=4)
    answers["share 0"] = place.exists()
    answers["quick disk"] = runs.run(None)
    with slow_disk():
        answers["slow disk"] = runs.run(place)
    with slow_disk():
        runs.run(place, kill_at=4)
    with slow_disk():
        answers["slow disk, resumed"] = runs.run(place)
    return answers


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return run_workers(functools.partial(one_worker, folder=folder), 1)[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensors cut", "the trial starts over"),
        ("common tensors cut", "the trial starts over"),
        ("document cut", "the trial starts over"),
        ("other format", "its checkpoint is of another format"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_passed_over(
    alone: dict[str, Any], name: str, said: str
) -> None:
    assert sum(said in line for line in alone[name]["log"]) == 1
    assert not any("going on after step" in line for line in alone[name]["log"])
    assert comparable(alone[name]["run"]) == comparable(alone["whole"])


def test_an_undamaged_one_is_taken(alone: dict[str, Any]) -> None:
    answer = alone["nothing happens"]
    assert answer["log"].count("going on after step 4 from a checkpoint") == 1
    assert comparable(answer["run"]) == comparable(alone["whole"])


def test_another_trials_checkpoint_is_passed_over(alone: dict[str, Any]) -> None:
    assert any("its checkpoint is of another trial" in m for m in alone["other trial"]["log"])
    found = comparable(alone["other trial"]["run"])
    assert found == comparable(alone["other whole"])
    assert found != comparable(alone["whole"])


def test_a_trial_that_cannot_write_says_so_once_and_goes_on(alone: dict[str, Any]) -> None:
    warnings = [m for m in alone["nowhere to write"]["log"] if "without checkpoints" in m]
    assert len(warnings) == 2  # the killed run and the one after it
    assert comparable(alone["nowhere to write"]["run"]) == comparable(alone["whole"])


def test_share_0_writes_none(alone: dict[str, Any]) -> None:
    assert alone["share 0"] is False


def test_a_slow_disk_makes_no_trial_dearer(alone: dict[str, Any]) -> None:
    quick, slow = alone["quick disk"], alone["slow disk"]
    writes = len(slow["reported"])
    assert slow["outcome"]["checkpoint_device_seconds"] >= writes * SLOW_WRITE
    for measured in (slow["outcome"], slow["reported"][-1]):
        assert measured["device_seconds"] < SLOW_WRITE
    assert quick["outcome"]["checkpoint_device_seconds"] == 0
    assert comparable(slow) == comparable(quick)


def test_what_checkpoints_took_is_carried_over_to_the_next_process(alone: dict[str, Any]) -> None:
    outcome = alone["slow disk, resumed"]["outcome"]
    # Of four checkpoints the last before the kill is not known to the one that went on from it.
    assert outcome["checkpoint_device_seconds"] >= 3 * SLOW_WRITE
    assert outcome["device_seconds"] < SLOW_WRITE


def test_checkpoints_after_the_first_stay_within_their_share_of_the_time(tmp_path: Path) -> None:
    import torch

    from study.training.checkpoint import TrialCheckpoints
    from study.training.placement import Placement

    alone = Placement(torch.device("cpu"), 0, 1)
    checkpoints = TrialCheckpoints(tmp_path, 0.1, alone, {})
    assert checkpoints._is_due(0.0)
    checkpoints._spent, checkpoints._last = 3.0, 1.0  # seconds: of three, and of the last one
    assert not checkpoints._is_due(39.9)
    assert checkpoints._is_due(40.1)
