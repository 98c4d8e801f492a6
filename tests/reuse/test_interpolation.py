"""A size between two tested ones: interpolated where the winners say so, else the nearest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from study.protocol.records import Stage, TrialRecord
from study.protocol.results import StudyResults
from study.reuse import best_configuration
from study.reuse.interpolate import trend
from tests.helpers.best_files import written
from tests.helpers.costs import step_costs
from tests.helpers.results import DRAWN_FROM, make_config, make_trial

SIZES = (250, 500, 1000, 2000)
Winner = Callable[[int, int], dict[str, Any]]
"""(size, replicate) to the hyperparameters of the winner."""


def study_of(
    winner: Winner,
    arm: str = "full",
    sizes: tuple[int, ...] = SIZES,
    replicates: int = 4,
    searched: dict[str, Any] | None = None,
    **config: Any,
) -> StudyResults:
    """A study with one search trial per replicate, which therefore wins, and two confirm runs; the
    first replicate's is chosen at every size."""
    trials: list[TrialRecord] = []
    for size in sizes:
        for replicate in range(replicates):
            chosen = winner(size, replicate)
            score = 2.0 + 0.01 * replicate
            kind: dict[str, Any] = {"score": score, "hyperparameters": chosen}
            trials.append(make_trial(arm, size, replicate, **kind))
            for index in range(2):
                trials.append(
                    make_trial(
                        arm, size, replicate,
                        stage=Stage.CONFIRM, index=index, test_loss=score + 0.1, **kind,
                    )
                )  # fmt: skip
    shape = make_config(
        arms=["full", "lift"], sizes=sizes, trials=1, replicates=replicates,
        overrides=DRAWN_FROM | (searched or {}), **config,
    )  # fmt: skip
    probe = step_costs(full_step=0.2, lift_step=0.1)
    return StudyResults(shape, tuple(trials), probe=probe, num_blocks=4)


def moving(scatter: float, slope: float = -0.5, seed: int = 1) -> Winner:
    """A learning rate that falls as a power of the size, and a warmup that does not move.

    Args:
        scatter: standard deviation of log learning rate among the replicates.
    """
    random = np.random.default_rng(seed)

    def winner(size: int, replicate: int) -> dict[str, Any]:
        log = math.log(1e-3) + slope * math.log(size / 250) + scatter * random.normal()
        return {
            "learning_rate": float(np.clip(math.exp(log), 1.1e-5, 5e-3)),
            "warmup_ratio": round(float(random.uniform(0.02, 0.08)), 3),
            "max_grad_norm": 1.0,
        }

    return winner


def test_an_optimum_that_moves_with_the_size_is_followed() -> None:
    best = best_configuration(study_of(moving(0.1)), "full", 700)
    chosen = best.file.to_dict()["chosen"]
    assert best.dataset_size == best.file.to_dict()["dataset_size"] == 700
    assert chosen["interpolated"] == ["learning_rate"]
    assert chosen["trials"] == ["full-n500-r0-s0", "full-n1000-r0-s0"]
    below, above = 1e-3 / math.sqrt(2), 1e-3 / 2
    assert above * 0.8 < best.hyperparameters["learning_rate"] < below * 1.2
    assert best.hyperparameters["learning_rate"] == pytest.approx(
        1e-3 / math.sqrt(700 / 250), rel=0.12
    )
    # 700 is nearer to 500 by ratio, so what does not move is that winner's.
    assert best.hyperparameters["warmup_ratio"] == best.trial.spec.hyperparameters["warmup_ratio"]
    assert best.trial.spec.size == 500
    text = written(best)
    assert "Between the winners at 500 and 1,000: learning_rate" in text
    assert "16 winners at 4 sizes" in text
    assert "neither was this configuration" in text
    assert {w["trial"].split("-")[1] for w in best.file.to_dict()["winners"]} == {"n500", "n1000"}


def test_what_is_interpolated_has_no_scores_of_its_own() -> None:
    scores = best_configuration(study_of(moving(0.1)), "full", 700).file.scores
    assert scores["dataset_size"] is None
    assert "test_loss" not in scores


def test_no_value_lies_beyond_the_two_winners() -> None:
    """Both chosen winners lie far above the line of the others."""

    def winner(size: int, replicate: int) -> dict[str, Any]:
        found = moving(0.05)(size, replicate)
        return found if replicate else found | {"learning_rate": 4e-3 if size < 1000 else 3e-3}

    best = best_configuration(study_of(winner, replicates=8), "full", 700)
    assert best.interpolated == ("learning_rate",)
    assert best.hyperparameters["learning_rate"] == 3e-3


def test_winners_that_only_scatter_are_not_interpolated() -> None:
    best = best_configuration(study_of(moving(0.8, slope=0.0)), "full", 700)
    assert best.interpolated == ()
    assert best.file.to_dict()["chosen"]["trials"] == ["full-n500-r0-s0"]
    assert best.hyperparameters == best.trial.spec.hyperparameters
    assert "Nothing was interpolated: no hyperparameter of the winners moves" in written(best)


def test_winners_of_another_structure_are_not_interpolated() -> None:
    follow = moving(0.1)

    def winner(size: int, replicate: int) -> dict[str, Any]:
        return follow(size, replicate) | {"sweeps": 1 if size < 1000 else 2}

    searched = {"lift": {"sweeps": {"low": 1, "high": 2, "type": "int"}}}
    best = best_configuration(study_of(winner, "lift", searched=searched), "lift", 700)
    assert best.interpolated == ()
    assert "its winners differ in sweeps (1 at 500, 2 at 1,000)" in written(best)


def test_only_winners_of_the_same_structure_count() -> None:
    follow = moving(0.1)

    def winner(size: int, replicate: int) -> dict[str, Any]:
        return follow(size, replicate) | {"sweeps": 1 + replicate % 2}

    searched = {"lift": {"sweeps": {"low": 1, "high": 2, "type": "int"}}}
    best = best_configuration(study_of(winner, "lift", searched=searched), "lift", 700)
    assert "there are 2 and 2" in written(best)


def test_a_trend_that_bends_is_not_interpolated() -> None:
    random = np.random.default_rng(0)

    def winner(size: int, replicate: int) -> dict[str, Any]:
        middle = {250: 1e-3, 500: 1e-4, 1000: 1e-4, 2000: 1e-3}[size]
        rate = middle * math.exp(0.1 * random.normal())
        return {"learning_rate": rate, "warmup_ratio": 0.05, "max_grad_norm": 1.0}

    best = best_configuration(study_of(winner), "full", 700)
    assert "no straight line fits the winners' learning_rate" in written(best)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"sizes": (500, 1000)}, "it takes winners at 3 sizes"),
        ({"replicates": 2}, "it takes 3 replicate winners"),
    ],
)
def test_too_few_winners_are_not_interpolated(shape: dict[str, Any], said: str) -> None:
    best = best_configuration(study_of(moving(0.05), **shape), "full", 700)
    assert best.interpolated == ()
    assert said in written(best)


def test_the_steps_are_those_that_the_plan_would_give_the_size() -> None:
    results = study_of(moving(0.1))
    full = best_configuration(results, "full", 700).file.to_dict()["run"]
    assert full["steps"] == math.ceil(3 * 700 / 8)
    assert full["evaluation_steps"][-1] == full["steps"]
    assert full["phases"] == [{"name": "all parameters", "steps": full["steps"]}]
    assert full["best_step"] is None
    lift = best_configuration(study_of(moving(0.1), "lift"), "lift", 700).file.to_dict()["run"]
    # A LIFT step costs half of a full one, and there are other costs.
    assert 1.5 * full["steps"] < lift["steps"] < 2.5 * full["steps"]
    assert sum(phase["steps"] for phase in lift["phases"]) == lift["steps"]
    assert lift["phases"][0]["name"] == "group 1 (block 3), sweep 1"


@pytest.mark.parametrize(
    ("asked", "near", "far"),
    [(200, 250, False), (100, 250, True), (2900, 2000, False), (9000, 2000, True)],
)
def test_a_size_outside_of_the_tested_ones_gets_the_outermost_configuration(
    asked: int, near: int, far: bool
) -> None:
    best = best_configuration(study_of(moving(0.1)), "full", asked)
    assert (best.trial.spec.size, best.interpolated) == (near, ())
    assert best.file.to_dict()["run"]["steps"] == max(100, math.ceil(3 * asked / 8))
    text = " ".join(best.notes)
    assert f"{asked:,} lies outside of the tested sizes" in text
    assert ("Nothing was tested near" in text) == far


def test_steps_of_a_domain_are_kept() -> None:
    def winner(size: int, replicate: int) -> dict[str, Any]:
        level = {250: 0.0, 500: 0.02, 1000: 0.06, 2000: 0.08}[size]
        nudge = 0.02 if replicate == 3 else 0.0
        return {"learning_rate": 1e-4, "warmup_ratio": level + nudge, "max_grad_norm": 1.0}

    searched = {"warmup_ratio": {"low": 0.0, "high": 0.1, "step": 0.02}}
    best = best_configuration(study_of(winner, searched=searched), "full", 700)
    assert best.interpolated == ("warmup_ratio",)
    assert best.hyperparameters["warmup_ratio"] == 0.04


def test_the_slope_test_holds_its_level() -> None:
    """Of 400 samples without a trend, 5 % have a p value below .05."""
    random = np.random.default_rng(1)
    sizes = [n for n in SIZES for _ in range(4)]
    found = [trend(sizes, random.normal(size=16)) for _ in range(400)]
    assert 0.02 < np.mean([t.slope_p < 0.05 for t in found]) < 0.08
    bends = [t.bend_p for t in found if t.bend_p is not None]
    assert 0.02 < np.mean([p < 0.05 for p in bends]) < 0.08


def test_a_trend_agrees_with_a_regression_by_hand() -> None:
    found = trend([2, 2, 4, 4, 8, 8], [1.0, 2.0, 2.0, 3.0, 4.0, 5.0])
    # Slope 1.5 per doubling; residuals -.33 .67 -.83 .17 -.33 .67, of sum of squares 1.8333.
    assert found.slope == pytest.approx(1.5)
    assert found.at(4) == pytest.approx(17 / 6)
    # Lack of fit .3333 on 1 against 1.5 on 3: F = .6667, p = .4740.
    assert found.bend_p == pytest.approx(0.4740, abs=1e-4)
    # t = 1.5 / sqrt(1.8333 / 4 / 4) = 4.4313 on 4: p = .01141.
    assert found.slope_p == pytest.approx(0.01141, abs=1e-5)


@pytest.mark.parametrize("values", [[0.05] * 12, [math.log(3e-4)] * 12])
def test_a_value_that_never_changes_neither_moves_nor_bends(values: list[float]) -> None:
    found = trend([n for n in SIZES for _ in range(3)], values)
    assert (found.slope_p, found.bend_p, found.slope) == (1.0, None, 0.0)
    assert found.at(700) == pytest.approx(values[0])


def test_values_without_scatter_are_on_the_line_or_off_it_beyond_doubt() -> None:
    sizes = [n for n in SIZES for _ in range(3)]
    line = trend(sizes, [math.log(n) for n in sizes])
    assert line.slope_p == 0.0 and line.bend_p == 1.0
    bent = trend(sizes, [math.log(n) + 0.1 * (n == 500) for n in sizes])
    assert bent.bend_p == 0.0
