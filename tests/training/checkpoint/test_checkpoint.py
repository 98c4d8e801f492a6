"""A trial stopped at any moment and taken up again is the trial that was never stopped."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study.protocol.records import Stage, TrialSpec
from tests.helpers.workers import run_workers
from tests.tiers import tiered, wanted
from tests.training.interrupted import (
    EVALUATIONS,
    STEPS,
    Runs,
    comparable,
    make_folder,
    spec_of,
    study_of,
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
    dropped = study_of(folder, model={"dropout": 0.2}, zero={"stage": 3})
    found["dropout"] = Case(dropped, spec_of(), (4,), (5,))
    found["sgd"] = Case(study_of(folder, training={"optimizer": "sgd"}), spec_of("full"))
    patient = study_of(folder, training={"patience": 1})
    found["patience"] = Case(patient, spec_of("full", rate=3.0), (1, 3))
    return found


DEFAULT = {
    "lift, stage 0, bf16", "full, stage 1, bf16", "full, stage 2, fp32", "lift, stage 3, fp32",
    "paused, stage 3", "confirm, stage 3", "paused confirm, stage 2",
    "offloaded optimizer, stage 3", "groups at rates of their own, stage 1",
    "whole small parameters, stage 3", "dropout", "sgd", "patience",
}  # fmt: skip
EXHAUSTIVE = {
    # Either arm has the other precision on every second stage.
    *(f"lift, stage {stage}, fp32" for stage in (0, 2)),
    *(f"lift, stage {stage}, bf16" for stage in (1, 3)),
    *(f"full, stage {stage}, fp32" for stage in (1, 3)),
    *(f"full, stage {stage}, bf16" for stage in (0, 2)),
    *(f"paused, stage {stage}" for stage in (1, 2)),
    "confirm, stage 2",
    "paused confirm, stage 3",
    "offloaded optimizer, stage 2",
    "groups at rates of their own, stage 2",
}
REFERRED_TO = {
    "paused, stage 3", "lift, stage 3, fp32", "confirm, stage 3", "dropout", "patience",
    "full, stage 2, fp32", "full, stage 1, bf16",
}  # fmt: skip
"""By tests of single cases."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory)


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
def found(folder: Path, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    names = {*wanted(request, "name"), *REFERRED_TO}
    jobs = {name: case for name, case in cases(folder).items() if name in names}
    return run_workers(functools.partial(interrupted, folder=folder, jobs=jobs), 2)


def tier(name: str) -> str:
    return "default" if name in DEFAULT else "exhaustive" if name in EXHAUSTIVE else "ray"


@pytest.mark.parametrize("name", tiered(cases(Path()), tier))
def test_a_killed_trial_ends_as_if_it_had_never_been_killed(
    found: list[dict[str, Any]], name: str
) -> None:
    for answer in (worker[name] for worker in found):
        whole, resumed = answer["whole"], answer["resumed"]
        assert comparable(resumed["reported"]) == comparable(whole["reported"])
        assert comparable(resumed["outcome"]) == comparable(whole["outcome"])
        assert resumed["weights"] == whole["weights"]
        assert answer["left"], "its outcome is not on record yet"


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
    outcome = whole["confirm, stage 3"]["outcome"]
    assert outcome["best_step"] < STEPS and outcome["test_loss"] is not None
    dropped, plain = whole["dropout"], whole["lift, stage 3, fp32"]
    assert dropped["reported"][0]["train_loss"] != plain["reported"][0]["train_loss"]
    assert whole["patience"]["outcome"]["status"] == "stopped_early"
    assert len(whole["patience"]["reported"]) < len(EVALUATIONS)
    assert whole["full, stage 1, bf16"]["weights"] != whole["full, stage 2, fp32"]["weights"]


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
