"""A best configuration's scores: a classifier's metrics, intervals that can be, and a warning where
nothing was learned."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from study.protocol.records import Stage, TrialRecord
from study.protocol.results import StudyResults
from study.reuse import best_configuration
from study.reuse.formats import export
from tests.helpers.best_files import written
from tests.helpers.results import make_config, make_results, make_trial, with_metrics


def test_accuracy_and_macro_f1_stand_beside_the_losses() -> None:
    best = best_configuration(with_metrics(make_results()), "full", 128)
    scores = best.file.scores
    for name, rate in (("accuracy", 5), ("macro_f1", 4)):
        own = [math.exp(-loss / rate) for loss in best.replicate.test_losses]
        assert scores[f"test_{name}"] == pytest.approx(sum(own) / len(own), abs=1e-6)
        low, high = scores[f"test_{name}_interval"]
        assert low < scores[f"test_{name}"] < high
        score = best.trial.score
        assert score is not None
        assert scores[f"search_validation_{name}"] == pytest.approx(math.exp(-score / rate), 1e-5)
    text = export(best.file, "transformers").text
    assert f"test accuracy {scores['test_accuracy']:.4f} (95 % interval" in text
    assert f"class prior's test loss {scores['base_test_loss']:.4f}" in text
    assert "test_accuracy" not in best_configuration(make_results(), "full", 128).file.scores


def confirmed(*losses: float, accuracy: tuple[float, ...] = ()) -> StudyResults:
    trials: list[TrialRecord] = [make_trial(score=losses[0])]
    for index, loss in enumerate(losses):
        run = make_trial(stage=Stage.CONFIRM, index=index, score=loss, test_loss=loss)
        assert run.outcome is not None
        if accuracy:
            metrics = {"accuracy": accuracy[index]}
            run = replace(run, outcome=replace(run.outcome, test_metrics=metrics))
        trials.append(run)
    config = make_config(
        arms=["full"], sizes=[64], trials=1, replicates=1, confirm_seeds=len(losses)
    )
    base = make_results().base
    assert base is not None
    return StudyResults(config, tuple(trials), replace(base, validation_loss=0.69, test_loss=0.69))


def test_no_interval_has_losses_below_0_or_shares_above_1() -> None:
    results = confirmed(0.02, 0.4, accuracy=(0.99, 0.9))
    scores = best_configuration(results, "full").file.scores
    # By Student's t with one degree of freedom it would begin at -2.2.
    assert scores["test_loss_interval"] == [0.0, pytest.approx(0.21 + 12.7062 * 0.19, abs=1e-3)]
    assert scores["confirm_validation_loss_interval"][0] == 0.0
    assert scores["test_accuracy_interval"][1] == 1.0
    assert "Cut off at 0 for a loss" in scores["intervals"]


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (confirmed(0.68, 0.72), "its test loss of 0.7000 is not below the base model's 0.6900"),
        (replace(confirmed(0.68), trials=confirmed(0.70).trials[:1]),
         "its validation loss of 0.7000 is not below the base model's 0.6900"),
        (with_metrics(confirmed(0.71, 0.69)), "is not below the class prior's 0.6900"),
    ],
)  # fmt: skip
def test_a_configuration_that_learned_nothing_is_not_handed_out_without_a_word(
    results: StudyResults, said: str
) -> None:
    best = best_configuration(results, "full")
    assert len(best.warnings) == 1 and said in best.warnings[0]
    assert said in written(best)
    assert best.warnings[0] in best.file.to_dict()["chosen"]["notes"]


def test_one_that_learned_something_gets_no_warning() -> None:
    assert best_configuration(confirmed(0.5, 0.6), "full").warnings == ()
