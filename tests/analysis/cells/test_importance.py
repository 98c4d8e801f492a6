"""Importance: found where there is an effect, hidden where there is none or too little to tell."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from study.analysis.cells.importance import MIN_TRIALS, Importance, importances, leave_one_out_r2
from study.protocol.records import TrialRecord, TrialState
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_trial

SPACE = {
    "shared": {
        "learning_rate": {"low": 1e-6, "high": 1e-4, "log": True},
        "warmup_ratio": {"low": 0.0, "high": 0.1},
        "max_grad_norm": 1.0,
    },
    "lift": {"sweeps": {"low": 1, "high": 3}, "cumulative": {"choices": [False, True]}},
}


def draw(
    effect: str | None, trials: int = 8, sizes: int = 2, seed: int = 0, arm: str = "lift"
) -> list[TrialRecord]:
    """Three replicates per size; losses are a size's and a replicate's own level, far apart, the
    effect of one hyperparameter, and noise."""
    random = np.random.default_rng(seed)
    made = []
    for size in (64, 128, 256, 512)[:sizes]:
        for m in range(3):
            level = 4.0 - size / 200 + random.normal(0, 0.1)
            for k in range(trials):
                u = random.random()
                chosen: dict[str, Any] = {
                    "learning_rate": float(1e-6 * 100**u),
                    "warmup_ratio": float(random.uniform(0, 0.1)),
                    "max_grad_norm": 1.0,
                }
                if arm == "lift":
                    chosen["sweeps"] = int(random.integers(1, 4))
                    chosen["cumulative"] = bool(random.random() < 0.5)
                worth = {
                    None: 0.0,
                    "learning_rate": 0.4 * (u - 0.6) ** 2,
                    "cumulative": 0.1 * chosen.get("cumulative", 0),
                    "sweeps": 0.05 * chosen.get("sweeps", 0),
                }[effect]
                loss = level + worth + random.normal(0, 0.01)
                made.append(make_trial(arm, size, m, index=k, score=loss, hyperparameters=chosen))
    return made


def study_of(trials: list[TrialRecord], *arms: str) -> StudyResults:
    config = make_config(arms=arms or ["lift"], search={"space": SPACE, "trials": 8})
    return StudyResults(config, tuple(trials))


def of_lift(trials: list[TrialRecord]) -> Importance:
    (found,) = importances(study_of(trials))
    return found


@pytest.mark.parametrize("effect", ["learning_rate", "cumulative", "sweeps"])
def test_the_hyperparameter_that_matters_comes_first(effect: str) -> None:
    found = of_lift(draw(effect, sizes=4))
    assert found.hidden == ""
    assert found.shares[0][0] == effect
    assert found.shares[0][1] > 0.6
    assert found.fit is not None and found.fit > 0.4
    assert sum(share for _, share in found.shares) == pytest.approx(1.0)
    # What is fixed cannot matter.
    assert {name for name, _ in found.shares} == {
        "learning_rate",
        "warmup_ratio",
        "sweeps",
        "cumulative",
    }


def test_noise_is_hidden_although_it_would_have_shares() -> None:
    found = of_lift(draw(None))
    assert found.shares == ()
    assert found.fit is not None and found.fit < 0.2
    assert "hardly foretell" in found.hidden
    assert (found.used, found.ended) == (48, 48)


def test_sizes_and_replicates_do_not_drown_what_matters_inside_them() -> None:
    """A level per replicate changes nothing, however large."""
    trials = draw("learning_rate")
    far = [
        make_trial(
            "lift",
            t.spec.size,
            t.spec.replicate,
            index=t.spec.index,
            score=(t.score or 0.0) + 100.0 * t.spec.replicate + t.spec.size,
            hyperparameters=t.spec.hyperparameters,
        )
        for t in trials
    ]
    here, there = of_lift(trials), of_lift(far)
    assert there.fit == pytest.approx(here.fit)
    assert dict(there.shares) == pytest.approx(dict(here.shares))


def test_one_loss_off_the_scale_decides_nothing() -> None:
    trials = draw("learning_rate")
    worst = max((t for t in trials if t.spec.replicate == 0), key=lambda t: t.score or 0.0)
    blown = make_trial(
        "lift",
        worst.spec.size,
        0,
        index=worst.spec.index,
        score=1e6,
        hyperparameters=worst.spec.hyperparameters,
    )
    found = of_lift([blown if t is worst else t for t in trials])
    assert dict(found.shares)["learning_rate"] > 0.6


def test_it_needs_enough_trials() -> None:
    few = of_lift(draw("learning_rate", trials=3))
    assert few.used == 18 < MIN_TRIALS
    assert (few.shares, few.fit) == ((), None)
    assert few.hidden == f"18 usable trials are too few to tell; it takes {MIN_TRIALS}."


def test_pruned_failed_and_outside_trials_are_left_out_and_told() -> None:
    trials = draw("learning_rate")
    pruned = replace(trials[0], state=TrialState.PRUNED)
    failed = replace(trials[1], state=TrialState.FAIL)
    spec = trials[2].spec
    outside = replace(
        trials[2],
        spec=replace(spec, hyperparameters=spec.hyperparameters | {"learning_rate": 1e-2}),
    )
    waiting = make_trial("lift", index=8, state=TrialState.WAITING)
    found = of_lift([pruned, failed, outside, *trials[3:], waiting])
    assert (found.used, found.ended) == (45, 48)
    assert dict(found.shares) == dict(of_lift(trials[3:]).shares)


def test_a_lone_trial_of_a_replicate_has_nothing_to_be_compared_with() -> None:
    trials = draw("learning_rate")
    lone = make_trial("lift", 256, 0, score=1.0, hyperparameters=trials[0].spec.hyperparameters)
    found, before = of_lift([*trials, lone]), of_lift(trials)
    assert (found.used, found.ended) == (48, 49)
    assert found.shares == before.shares


def test_it_is_the_same_every_time_and_in_any_order() -> None:
    trials = draw("learning_rate")
    assert of_lift(trials) == of_lift(trials)
    again = of_lift(trials[::-1])
    assert dict(again.shares) == pytest.approx(dict(of_lift(trials).shares))


def test_each_arm_is_judged_by_its_own_trials_and_space() -> None:
    trials = draw(None, arm="full") + draw("learning_rate")
    full, lift = importances(study_of(trials, "full", "lift"))
    assert (full.arm, full.shares) == ("full", ())
    assert lift.shares == of_lift(draw("learning_rate")).shares


def test_one_searched_hyperparameter_leaves_nothing_to_compare() -> None:
    trials = draw("learning_rate", arm="full")
    config = make_config(
        arms=["full"],
        search={"space": {"shared": SPACE["shared"] | {"warmup_ratio": 0.1}}},
    )
    (found,) = importances(StudyResults(config, tuple(trials)))
    assert "nothing to compare" in found.hidden


def test_leave_one_out_r2_is_what_refitting_without_each_value_gives() -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(15, 2))
    target = features[:, 0] + random.normal(0, 0.5, 15)
    errors, totals = [], []
    for i in range(15):
        kept = np.arange(15) != i
        design = np.column_stack([np.ones(14), features[kept]])
        fit = np.linalg.lstsq(design, target[kept], rcond=None)[0]
        errors.append(target[i] - fit @ [1.0, *features[i]])
        totals.append(target[i] - target[kept].mean())
    expected = 1 - np.sum(np.square(errors)) / np.sum(np.square(totals))
    assert leave_one_out_r2(features, target) == pytest.approx(expected)


def test_what_follows_every_value_wherever_it_goes_fits_nothing() -> None:
    random = np.random.default_rng(4)
    assert leave_one_out_r2(random.normal(size=(10, 20)), random.normal(size=10)) == 0.0
    one_of_a_kind = np.eye(10)[:, :1]
    assert leave_one_out_r2(one_of_a_kind, random.normal(size=10)) == 0.0


def test_optuna_is_imported_only_when_asked() -> None:
    code = "import sys, study.analysis.cells.importance; print('optuna' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_nothing_is_told_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    of_lift(draw("learning_rate"))
    assert capfd.readouterr() == ("", "")
