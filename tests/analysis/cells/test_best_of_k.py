"""Expected best of k against brute force over every subset, and against hand-computed studies."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest

from study.analysis.cells.best_of_k import best_of_k, expected_best
from study.protocol.records import BaseModelRecord, TrialRecord, TrialState
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_results, make_trial


def study_of(trials: list[TrialRecord], base: float | None = 9.0) -> StudyResults:
    found = None if base is None else BaseModelRecord(base, base, None)
    return StudyResults(make_config(sizes=[64], arms=["full"]), tuple(trials), base=found)


def search(losses: list[float], replicate: int = 0, seconds: float = 10.0) -> list[TrialRecord]:
    return [
        make_trial("full", 64, replicate, index=k, score=loss, device_seconds=seconds)
        for k, loss in enumerate(losses)
    ]


def lost(index: int, state: TrialState, replicate: int = 0, seconds: float = 10.0) -> TrialRecord:
    trial = make_trial("full", 64, replicate, index=index, state=state, device_seconds=seconds)
    return replace(trial, measurements=())


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_it_is_the_mean_over_all_subsets(n: int) -> None:
    losses = np.random.default_rng(n).normal(4.0, 0.3, n)
    by_hand = [fmean(map(min, combinations(losses.tolist(), k))) for k in range(1, n + 1)]
    assert expected_best(losses) == pytest.approx(by_hand, rel=1e-12)


def test_ties_count_as_often_as_they_occur() -> None:
    losses = [2.0, 1.0, 2.0, 1.0]
    by_hand = [fmean(map(min, combinations(losses, k))) for k in range(1, 5)]
    assert expected_best(losses) == pytest.approx(by_hand)
    assert by_hand == pytest.approx([1.5, 7 / 6, 1.0, 1.0])


def test_it_does_not_flatter_as_draws_with_replacement_do() -> None:
    """Unbiased: over many searches of 4 uniform draws its mean is E[min of k] = 1 / (k + 1)."""
    random = np.random.default_rng(0)
    found = np.mean([expected_best(random.random(4)) for _ in range(20_000)], axis=0)
    assert found == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5], abs=0.006)


def test_a_thousand_trials_overflow_nothing() -> None:
    losses = np.arange(1500.0)
    best = expected_best(losses)
    # The lowest of k of 0, 1, ..., n - 1 is expected at (n - k) / (k + 1).
    k = np.arange(1, 1501)
    assert best == pytest.approx((1500 - k) / (k + 1), rel=1e-8, abs=1e-8)


def test_replicates_are_averaged_after_their_own_best() -> None:
    trials = search([4.0, 3.0], 0, seconds=10.0) + search([4.4, 4.5], 1, seconds=20.0)
    (curve,) = best_of_k(study_of(trials))
    assert curve.losses == pytest.approx([(3.5 + 4.45) / 2, (3.0 + 4.4) / 2])
    assert (curve.low, curve.high) == (pytest.approx([3.5, 3.0]), pytest.approx([4.45, 4.4]))
    assert curve.device_seconds == pytest.approx([15.0, 30.0])
    assert (curve.replicates, curve.trials) == (2, 2)
    assert curve.last_doubling == pytest.approx(3.975 - 3.7)


def test_a_failed_trial_is_a_draw_that_leaves_the_base_model() -> None:
    trials = [*search([3.0, 4.0]), lost(2, TrialState.FAIL, seconds=1.0)]
    (curve,) = best_of_k(study_of(trials, base=6.0))
    by_hand = [fmean(map(min, combinations([3.0, 4.0, 6.0], k))) for k in (1, 2, 3)]
    assert curve.losses == pytest.approx(by_hand)
    assert curve.device_seconds[-1] == pytest.approx(21.0)
    assert curve.failed == 1


def test_no_trial_counts_as_more_than_the_base_model() -> None:
    (curve,) = best_of_k(study_of(search([3.0, 50.0]), base=6.0))
    assert curve.losses == pytest.approx([4.5, 3.0])


def test_without_a_base_model_a_failed_trial_counts_as_the_worst() -> None:
    trials = [*search([3.0, 4.0]), lost(2, TrialState.FAIL)]
    (curve,) = best_of_k(study_of(trials, base=None))
    assert curve.losses[0] == pytest.approx((3.0 + 4.0 + 4.0) / 3)


def test_a_search_that_failed_altogether_keeps_the_base_model_at_full_cost() -> None:
    failed = [lost(k, TrialState.FAIL) for k in range(2)]
    (curve,) = best_of_k(study_of(failed, base=6.0))
    assert curve.losses == pytest.approx([6.0, 6.0])
    assert curve.device_seconds == pytest.approx([10.0, 20.0])
    assert best_of_k(study_of(failed, base=None)) == ()


def test_a_pruned_trial_changes_no_loss_and_costs_what_it_cost() -> None:
    complete = search([3.0, 4.0])
    (before,) = best_of_k(study_of(complete))
    pruned = make_trial("full", 64, index=2, score=1.0, state=TrialState.PRUNED, device_seconds=6.0)
    (after,) = best_of_k(study_of([*complete, pruned]))
    assert after.losses == before.losses
    assert after.device_seconds == pytest.approx([13.0, 26.0])
    assert (after.pruned, after.trials) == (1, 2)


def test_a_search_still_running_is_left_out() -> None:
    waiting = make_trial("full", 64, 1, index=1, state=TrialState.WAITING)
    trials = [*search([3.0, 4.0], 0), *search([1.0], 1), waiting]
    (curve,) = best_of_k(study_of(trials))
    assert (curve.replicates, curve.losses[-1]) == (1, 3.0)
    assert best_of_k(make_results(sizes=[64], progress=0.0)) == ()


def test_the_last_point_is_what_the_winners_lost_and_the_searches_cost() -> None:
    results = make_results(sizes=[128, 64], replicates=3, trials=5)
    curves = best_of_k(results)
    assert [(c.size, c.arm) for c in curves] == [
        (64, "full"),
        (64, "lift"),
        (128, "full"),
        (128, "lift"),
    ]
    searches = [t for t in results.trials if t.spec.trial_id.startswith("lift-n128-r")]
    searches = [t for t in searches if "-s" in t.spec.trial_id]
    best = [min(t.score or 0.0 for t in searches if t.spec.replicate == r) for r in range(3)]
    spent = sum(t.outcome.device_seconds for t in searches if t.outcome) / 3
    assert curves[3].losses[-1] == pytest.approx(fmean(best))
    assert curves[3].device_seconds[-1] == pytest.approx(spent)


def test_one_trial_has_no_doubling() -> None:
    (curve,) = best_of_k(study_of(search([3.0])))
    assert curve.last_doubling is None
