"""The best configuration: picked by rule, complete, and refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from study.analysis.summary import summarise
from study.basics.errors import UserError
from study.protocol.records import Stage, TrialState
from study.protocol.results import StudyResults
from study.reuse import best_configuration
from tests.helpers.best_files import written
from tests.helpers.results import make_config, make_results, make_trial

LOW, HIGH = {"learning_rate": 2e-5, "weight_decay": 0.1}, {"learning_rate": 5e-5}


def two_winners() -> StudyResults:
    """Replicate 0 wins the search, replicate 1 the confirm runs."""
    trials = (
        make_trial(replicate=0, score=4.0, hyperparameters=HIGH),
        make_trial(replicate=1, score=4.2, hyperparameters=LOW),
        make_trial(replicate=0, stage=Stage.CONFIRM, score=4.6, hyperparameters=HIGH,
                   test_loss=4.0, retention_loss=3.0),
        make_trial(replicate=1, stage=Stage.CONFIRM, score=4.3, hyperparameters=LOW,
                   test_loss=4.4, retention_loss=3.1),
    )  # fmt: skip
    return StudyResults(make_config(arms=["full"], sizes=[64], trials=1, replicates=2), trials)


def test_confirm_validation_loss_decides_and_neither_search_nor_test_loss_does() -> None:
    best = best_configuration(two_winners(), "full")
    assert best.hyperparameters == LOW
    assert best.replicate.replicate == 1
    assert [winner["replicate"] for winner in best.file.winners] == [0, 1]
    assert "lowest mean validation loss of its confirm runs (1 confirm run)" in best.rule


def test_without_confirm_runs_the_search_decides_and_says_so() -> None:
    results = two_winners()
    best = best_configuration(replace(results, trials=results.trials[:2]), "full")
    assert best.hyperparameters == HIGH
    assert "no confirm run is complete" in written(best)


def test_an_unfinished_search_gives_the_best_so_far_and_says_so() -> None:
    results = two_winners()
    waiting = tuple(make_trial(replicate=r, index=1, state=TrialState.WAITING) for r in (0, 1))
    best = best_configuration(replace(results, trials=(*results.trials[:2], *waiting)), "full")
    assert best.hyperparameters == HIGH
    assert best.file.winners == []
    assert "# The study is unfinished: 2 of 8 trials ended." in written(best)
    assert "no search at this size has ended" in written(best)


def test_yaml_gives_everything_back_that_a_rerun_needs() -> None:
    results = make_results(storage={"results": "/results/synthetic"})
    best = best_configuration(results, "lift", 128)
    text = written(best)
    assert text.startswith("# Best configuration of LIFT at 128 examples, study synthetic.\n")
    loaded = yaml.safe_load(text)
    assert loaded == best.file.to_dict()
    spec = best.trial.spec
    assert loaded["format"] == 1
    assert loaded["study"]["results"] == "/results/synthetic"
    assert loaded["chosen"]["trials"] == [spec.trial_id]
    assert loaded["chosen"]["interpolated"] == loaded["chosen"]["notes"] == []
    assert loaded["hyperparameters"] == spec.hyperparameters
    assert loaded["strategy"]["sweeps"] == 1
    # The rule stays in `training`; what it comes to is in `run`.
    assert loaded["training"]["epochs"] == 3.0 and loaded["training"]["steps"] is None
    run = loaded["run"]
    assert run["steps"] == spec.steps == sum(p["steps"] for p in run["phases"])
    assert run["epochs"] == pytest.approx(spec.steps * 8 / 128, abs=1e-3)
    assert run["evaluation_steps"] == list(spec.evaluation_steps)
    assert loaded["deepspeed"]["zero_optimization"]["stage"] == 2
    assert loaded["zero"]["stage"] == 2
    assert loaded["resources"]["workers_per_trial"] == 1
    assert loaded["prefix_cache"]["enabled"] == "auto"
    assert loaded["model"]["path"] == "models/tiny-llama"
    assert loaded["model"]["fingerprint"] == "folder-1:00ff"
    assert (loaded["model"]["num_blocks"], loaded["model"]["tied"]) == (4, False)
    assert loaded["data"]["fingerprint"] == "9f86d081884c7d65"
    assert loaded["seeds"]["trial"] == spec.seed
    assert len(loaded["seeds"]["confirm"]) == 2
    assert loaded["versions"]["torch"] == "2.13.0"
    assert len(loaded["winners"]) == 3
    assert loaded["verdict"]["dataset_size"] == 128
    assert loaded["verdict"]["answer"] in ("better", "cheaper", "lean", "not_enough_evidence")


def test_scores_have_intervals_by_the_seeds_of_the_cell() -> None:
    results = make_results()
    best = best_configuration(results, "lift", 128)
    scores = best.file.scores
    cells = summarise(results, with_grid=False).cells
    (replicates,) = [c.replicates for c in cells if (c.arm, c.size) == ("lift", 128)]
    assert scores["dataset_size"] == 128
    assert scores["retention_rise"] > 0
    for name in ("confirm_validation_loss", "test_loss", "retention_rise", "arm_test_loss"):
        low, high = scores[f"{name}_interval"]
        assert low < scores[name] < high
    # Three replicates of two runs: half of the squared gaps, three degrees of freedom, t = 3.1824.
    gaps = [r.test_losses[0] - r.test_losses[1] for r in replicates]
    variance = sum(gap**2 / 2 for gap in gaps) / 3
    half = 3.18245 * (variance / 2) ** 0.5
    assert scores["test_loss_interval"][1] - scores["test_loss"] == pytest.approx(half, abs=2e-6)
    one_seed = best_configuration(make_results(confirm_seeds=1), "lift", 128).file.to_dict()[
        "scores"
    ]
    assert one_seed["test_loss"] is not None and one_seed["test_loss_interval"] is None


def test_a_password_of_the_study_is_in_no_best_configuration() -> None:
    place = {
        "results": "s3://user:hush-hush@bucket/study",
        "database": "postgresql://a:hush-hush@b/c",
    }
    text = written(best_configuration(make_results(storage=place), "full"))
    assert "hush-hush" not in text
    assert "s3://" in text


def test_hyperparameters_replace_the_settings_they_decide() -> None:
    best = best_configuration(two_winners(), "full")
    assert best.file.training.weight_decay == 0.1
    assert best.file.hyperparameters == LOW
    results = two_winners()
    chosen = {"learning_rate": 2e-5, "sweeps": 2}
    lift = (make_trial("lift", score=4.0, hyperparameters=chosen),)
    config = make_config(arms=["lift"], sizes=[64], trials=1, replicates=1)
    content = best_configuration(replace(results, config=config, trials=lift), "lift").file
    assert content.strategy["sweeps"] == 2
    assert content.hyperparameters == {"learning_rate": 2e-5}


def test_the_default_size_is_the_one_asked_about_else_the_largest_with_results() -> None:
    assert best_configuration(make_results(), "full").dataset_size == 512
    asked = make_results(decision={"dataset_size": 128})
    assert best_configuration(asked, "full").dataset_size == 128
    between = best_configuration(make_results(decision={"dataset_size": 200}), "full")
    assert (between.dataset_size, between.trial.spec.size) == (200, 256)
    assert "200 was not tested; this is the best configuration at 256" in written(between)


def test_an_arm_that_learned_nothing_is_marked() -> None:
    results = make_results(sizes=[64])
    assert results.base is not None
    low = replace(results, base=replace(results.base, test_loss=1.0))
    assert "did not learn the task" in written(best_configuration(low, "full"))


@pytest.mark.parametrize(
    ("arm", "size", "shape", "parts"),
    [
        ("lora", None, {}, ("Arm 'lora'", "full, lift")),
        ("lift", None, {"arms": ["full"]}, ("Arm 'lift'", "Use one of: full.")),
        ("full", None, {"all_failed": True}, ("No search trial of arm 'full'", "study status")),
        ("full", None, {"progress": 0.0}, ("No search trial of arm 'full'", "study status")),
        ("lift", 64, {"progress": 0.1}, ("arm 'lift' at 64 examples",)),
        ("full", 512, {"progress": 0.1}, ("at 512 examples", "Sizes with results: 64, 128.")),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_met_names_what_can(
    arm: str, size: int | None, shape: dict[str, object], parts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        best_configuration(make_results(**shape), arm, size)
    for part in parts:
        assert part in str(caught.value)
