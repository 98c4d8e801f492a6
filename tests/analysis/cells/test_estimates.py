"""Winners, means and differences against values computed by hand."""

from __future__ import annotations

import math

import pytest

from study.analysis import StudySummary, caveats
from study.analysis.cells.estimates import estimate
from study.analysis.summary import summarise
from study.protocol.records import BaseModelRecord, Stage, TrialRecord, TrialState
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_results, make_trial

GOOD, OTHER = {"learning_rate": 2e-5}, {"learning_rate": 5e-5}


def two_arms() -> tuple[TrialRecord, ...]:
    """Two replicates with two confirm seeds per arm; replicate means are
    full 4.0 and 4.4, LIFT 3.9 and 4.1."""
    trials = []
    tests = {("full", 0): (3.9, 4.1), ("full", 1): (4.3, 4.5), ("lift", 0): (3.8, 4.0)}
    tests["lift", 1] = (4.0, 4.2)
    for (arm, replicate), losses in tests.items():
        cost = 20.0 if arm == "full" else 30.0
        trials += [
            make_trial(arm, 64, replicate, score=4.5, hyperparameters=OTHER, device_seconds=cost),
            make_trial(
                arm, 64, replicate, index=1, score=4.2, hyperparameters=GOOD, device_seconds=cost
            ),
        ]
        trials += [
            make_trial(
                arm, 64, replicate, stage=Stage.CONFIRM, index=k, score=4.0 + k / 10,
                test_loss=loss, retention_loss=3.0 + k, hyperparameters=GOOD, device_seconds=cost,
            )
            for k, loss in enumerate(losses)
        ]  # fmt: skip
    return tuple(trials)


def summary_of(trials: tuple[TrialRecord, ...], **shape: object) -> StudySummary:
    config = make_config(sizes=[64], trials=2, replicates=2, **shape)
    return summarise(StudyResults(config, trials, BaseModelRecord(4.6, 4.7, 2.9)))


def test_the_winner_is_the_complete_search_trial_with_the_lowest_validation_loss() -> None:
    trials = (
        make_trial(index=0, score=4.3),
        make_trial(index=1, score=4.1),
        make_trial(index=2, score=4.2),
        make_trial(index=3, score=3.0, state=TrialState.PRUNED),
        make_trial(index=4, score=2.0, state=TrialState.FAIL, status="diverged"),
        make_trial(stage=Stage.CONFIRM, score=1.0),
    )
    replicate = summary_of(trials, arms=["full"]).cell("full", 64).replicates[0]
    assert replicate.winner is trials[1]
    assert replicate.search_planned == 5


def test_a_trial_stopped_by_patience_can_win() -> None:
    early = make_trial(index=1, score=4.0, status="stopped_early")
    trials = (make_trial(index=0, score=4.9), early)
    assert summary_of(trials, arms=["full"]).cell("full", 64).replicates[0].winner is early


def test_a_loss_that_is_not_finite_never_wins() -> None:
    trials = (make_trial(index=0, score=math.nan), make_trial(index=1, score=4.4))
    assert summary_of(trials, arms=["full"]).cell("full", 64).replicates[0].winner is trials[1]


def test_an_unfinished_search_has_a_leader_and_no_winner() -> None:
    trials = (make_trial(index=0, score=4.3), make_trial(index=1, state=TrialState.WAITING))
    replicate = summary_of(trials, arms=["full"]).cell("full", 64).replicates[0]
    assert replicate.winner is None
    assert replicate.leader is trials[0]


def test_means_are_taken_over_seeds_first_and_over_replicates_then() -> None:
    found = estimate([(1.0, 3.0), (5.0,), ()])
    assert found is not None
    assert (found.mean, found.low, found.high) == (3.5, 2.0, 5.0)
    assert found.sd == pytest.approx(math.sqrt(4.5))  # of 2 and 5, over n - 1
    assert (found.replicates, found.runs) == (2, 3)
    assert found.extent == "3 runs of 2 replicates"


def test_one_replicate_has_no_standard_deviation() -> None:
    found = estimate([(1.0, 3.0)])
    assert found is not None
    assert found.sd is None
    assert found.extent == "1 replicate x 2 seeds"


def test_uneven_replicates_are_not_called_equal_when_the_runs_divide() -> None:
    found = estimate([(1.0,), (1.0, 2.0, 3.0)])
    assert found is not None
    assert found.extent == "4 runs of 2 replicates"


def test_test_loss_and_retention_rise_match_hand_computed_means() -> None:
    cell = summary_of(two_arms()).cell("full", 64)
    assert cell.test is not None and cell.retention_rise is not None
    assert cell.test.mean == pytest.approx(4.2)
    assert (cell.test.low, cell.test.high) == pytest.approx((4.0, 4.4))
    assert cell.test.sd == pytest.approx(0.4 / math.sqrt(2))
    assert cell.test.extent == "2 replicates x 2 seeds"
    assert cell.retention_rise.mean == pytest.approx(0.6)  # of 3.0 and 4.0 over 2.9


def test_the_difference_is_full_minus_lift_paired_over_replicates() -> None:
    (found,) = summary_of(two_arms()).differences
    assert found.mean == pytest.approx(0.2)  # 4.0 - 3.9 and 4.4 - 4.1
    assert (found.low, found.high) == pytest.approx((0.1, 0.3))
    assert found.cold_cost_ratio == found.spent_cost_ratio == pytest.approx(1.5)


def test_a_replicate_of_one_arm_alone_enters_no_difference() -> None:
    trials = tuple(t for t in two_arms() if t.spec.arm == "full" or t.spec.replicate == 0)
    (found,) = summary_of(trials).differences
    assert found.mean == pytest.approx(0.1)
    assert found.arms["full"].mean == pytest.approx(4.0)
    assert found.replicates == 1


def test_confirm_runs_of_a_former_winner_are_left_out_and_said() -> None:
    stale = make_trial(stage=Stage.CONFIRM, index=2, test_loss=9.0, score=9.0,
                       hyperparameters=OTHER)  # fmt: skip
    summary = summary_of((*two_arms(), stale))
    found = summary.cell("full", 64).test
    assert found is not None and found.mean == pytest.approx(4.2)
    assert any("1 confirm run of former winners" in note for note in caveats(summary))


def test_a_failed_confirm_run_is_in_no_mean_and_said() -> None:
    lost = make_trial(stage=Stage.CONFIRM, index=2, state=TrialState.FAIL, status="error",
                      hyperparameters=GOOD)  # fmt: skip
    summary = summary_of((*two_arms(), lost))
    assert summary.cell("full", 64).replicates[0].confirm_failed == 1
    assert "1 confirm run failed and is in no mean." in caveats(summary)


def test_every_state_is_counted_once() -> None:
    results = make_results(
        sizes=[64, 128], failures=("full-n64-r0-s0",), pruned=("lift-n64-r0-s0",),
        stopped_early=("full-n128-r0-s1",),
    )  # fmt: skip
    counts = summarise(results).counts
    assert (counts.failed, counts.diverged, counts.pruned, counts.stopped_early) == (1, 1, 1, 1)
    assert counts.ended == counts.planned == len(results.trials) == 72


def test_confirm_runs_of_winners_not_yet_known_count_as_waiting() -> None:
    results = make_results(sizes=[64], progress=0.0)
    assert len(results.trials) == 24  # 2 arms, 3 replicates, 4 search trials
    counts = summarise(results).counts
    assert (counts.running, counts.waiting, counts.planned) == (2, 34, 36)


def test_best_of_a_size_is_the_lowest_mean_confirm_validation_loss() -> None:
    trials = (
        make_trial(replicate=0, score=4.0, hyperparameters=GOOD),
        make_trial(replicate=0, stage=Stage.CONFIRM, score=4.5, hyperparameters=GOOD),
        make_trial(replicate=1, score=4.2, hyperparameters=OTHER),
        make_trial(replicate=1, stage=Stage.CONFIRM, score=4.3, hyperparameters=OTHER),
    )
    best = summary_of(trials, arms=["full"]).cell("full", 64).best
    assert best is not None and best.replicate == 1
    unconfirmed = summary_of((trials[0], trials[2]), arms=["full"]).cell("full", 64).best
    assert unconfirmed is not None and unconfirmed.replicate == 0
