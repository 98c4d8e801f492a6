"""A sweep's best configurations, and when their order is shown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from study.analysis.curve.noise import assumed_noise
from study.analysis.summary import summarise
from study.analysis.verdict.ranking import to_comparison
from study.protocol.records import Stage, TrialState
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_results, make_trial

SD = math.sqrt(assumed_noise(4).within / 2)
REACH = 1.959964 * SD * math.sqrt(2)


def sweep(*losses: float, **shape: object) -> StudyResults:
    """One search of full at 64 examples."""
    shape = {"arms": ["full"], "sizes": [64], "replicates": 1, "confirm_seeds": 0} | shape
    trials = tuple(make_trial(index=k, score=loss) for k, loss in enumerate(losses))
    return StudyResults(make_config(trials=len(losses), **shape), trials)  # type: ignore[arg-type]


def test_configurations_are_ranked_and_told_apart_by_what_seeds_alone_may_do() -> None:
    best = 4.0
    (found,) = summarise(sweep(4.3, best, best + 0.9 * REACH, best + 1.1 * REACH)).rankings
    assert [one.trial.spec.index for one in found.ranked] == [1, 2, 3, 0]
    assert [one.told_apart for one in found.ranked] == [False, False, True, True]
    assert (found.near, found.seed_freedom) == (1, 0)
    assert found.reach == pytest.approx(REACH, rel=1e-6)
    # The lowest of each of the six pairs.
    pairs = [4.0] * 3 + [4.0 + 0.9 * REACH] * 2 + [4.0 + 1.1 * REACH]
    assert found.last_doubling == pytest.approx(sum(pairs) / 6 - 4.0)


def test_failed_pruned_and_running_trials_have_no_place() -> None:
    results = sweep(4.0, 3.0, 3.0, 3.0)
    states = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING)
    trials = [replace(t, state=s) for t, s in zip(results.trials, states, strict=True)]
    (found,) = summarise(replace(results, trials=tuple(trials))).rankings
    assert [one.trial.spec.index for one in found.ranked] == [0]
    assert found.near == 0 and found.last_doubling is None


def test_confirm_runs_rank_the_winners_and_measure_the_seeds() -> None:
    trials = []
    for replicate, losses in enumerate([(4.0, 4.2), (4.4, 4.4)]):
        point = {"learning_rate": 1e-4 * (replicate + 1)}
        # The search has them the other way round.
        trials.append(make_trial(replicate=replicate, score=4.3 - replicate, hyperparameters=point))
        trials += [
            make_trial(replicate=replicate, stage=Stage.CONFIRM, index=k, score=loss,
                       test_loss=loss, hyperparameters=point)
            for k, loss in enumerate(losses)
        ]  # fmt: skip
    config = make_config(arms=["full"], sizes=[64], replicates=2, trials=1)
    (found,) = summarise(StudyResults(config, tuple(trials))).rankings
    assert [one.trial.spec.replicate for one in found.ranked] == [0, 1]
    assert [one.runs for one in found.ranked] == [2, 2]
    # Squares of 0.1 twice and of 0 twice, two degrees of freedom, t = 4.3027.
    assert (found.seed_sd, found.seed_freedom) == (pytest.approx(0.1), 2)
    assert found.reach == pytest.approx(4.302653 * 0.1)
    assert found.ranked[1].behind == pytest.approx(0.3) and found.near == 1


def test_a_study_that_compares_has_verdicts_and_no_ranking_and_a_sweep_the_other_way_round() -> (
    None
):
    compared = summarise(make_results())
    assert compared.verdicts and not compared.rankings
    for shape in ({"confirm_seeds": 0}, {"arms": ["lift"]}):
        found = summarise(make_results(**shape))  # type: ignore[arg-type]
        assert not found.verdicts and not found.grid
        cells = [(cell.arm, cell.size) for cell in found.cells]
        assert [(ranking.arm, ranking.size) for ranking in found.rankings] == cells


def test_what_makes_a_sweep_a_comparison_passes_the_gates_of_the_plan() -> None:
    both = make_config(sizes=[1000], replicates=1, trials=4, confirm_seeds=0)
    change, trials = to_comparison(both)
    assert change == "dataset_sizes: [125, 250, 500, 1000], search.replicates: 3, confirm.seeds: 2"
    # Four sizes of three replicates of two arms, less the eight trials that there are.
    assert trials == 4 * 3 * 2 * (4 + 2) - 8
    one = make_config(arms=["lift"], sizes=[1000], replicates=1, trials=4, confirm_seeds=0)
    change, trials = to_comparison(one)
    assert change.startswith("arms: [full, lift], dataset_sizes: [125, ")
    assert trials == 4 * 3 * 2 * (4 + 2)
