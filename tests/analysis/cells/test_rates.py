"""Shares of trials: Wilson intervals against published and independently solved values."""

from __future__ import annotations

import math

import pytest

from study.analysis.cells.rates import trial_shares, wilson
from study.protocol.records import Stage
from tests.helpers.results import make_results


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I,
        # method 3 (score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_intervals(
    successes: int, trials: int, low: float, high: float
) -> None:
    found = wilson(successes, trials)
    assert found.low is not None and found.high is not None
    assert found.value == successes / trials
    assert round(found.low, 4) == low
    assert round(found.high, 4) == high


@pytest.mark.parametrize(("successes", "trials"), [(1, 4), (3, 24), (50, 1000)])
def test_the_ends_are_the_shares_whose_score_test_is_just_significant(
    successes: int, trials: int
) -> None:
    found = wilson(successes, trials)
    for end in (found.low, found.high):
        assert end is not None
        score = (successes / trials - end) / math.sqrt(end * (1 - end) / trials)
        assert abs(score) == pytest.approx(1.959963984540054, rel=1e-9)


def test_failures_mirror_successes_and_the_ends_stay_within_0_and_1() -> None:
    few, many = wilson(2, 9), wilson(7, 9)
    assert few.low is not None and few.high is not None
    assert (many.low, many.high) == pytest.approx((1 - few.high, 1 - few.low))
    assert wilson(0, 5).low == 0.0
    assert wilson(5, 5).high == 1.0


def test_no_trials_say_nothing() -> None:
    none = wilson(0, 0)
    assert (none.low, none.high) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_more_successes_than_trials_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="between 0 and trials"):
        wilson(successes, trials)


def test_shares_are_of_ended_trials_and_keep_arms_and_stages_apart() -> None:
    results = make_results(
        sizes=[64, 128],
        replicates=2,
        trials=4,
        failures=("lift-n64-r0-s0", "lift-n64-r1-c0"),
        pruned=("full-n64-r0-s1", "full-n64-r0-s2"),
        stopped_early=("lift-n128-r0-s3",),
    )
    full, lift, full_confirm, lift_confirm = trial_shares(results)
    assert [(s.arm, s.stage) for s in (full, lift, full_confirm, lift_confirm)] == [
        ("full", Stage.SEARCH),
        ("lift", Stage.SEARCH),
        ("full", Stage.CONFIRM),
        ("lift", Stage.CONFIRM),
    ]
    assert (full.counts.ended, full.complete.value, full.pruned.value) == (16, 14 / 16, 2 / 16)
    assert full.failed.value == full.stopped_early.value == 0.0
    assert (lift.failed.value, lift.diverged.value) == (1 / 16, 1 / 16)
    assert (lift.complete.value, lift.stopped_early.value) == (15 / 16, 1 / 16)
    assert (full_confirm.failed.value, lift_confirm.failed.value) == (0.0, 1 / 8)
    assert lift.diverged == wilson(1, 16)


def test_a_crash_is_no_divergence() -> None:
    results = make_results(
        sizes=[64], failures=("full-n64-r0-s0",), failure_reason="CUDA error: out of memory"
    )
    full = trial_shares(results)[0]
    assert (full.failed.value, full.diverged.value) == (1 / 12, 0.0)


def test_trials_that_have_not_ended_are_in_no_share() -> None:
    results = make_results(sizes=[64], progress=0.5, confirm_seeds=0)
    full, lift = trial_shares(results)
    assert (full.counts.ended, full.complete.value) == (12, 1.0)
    assert (lift.counts.ended, lift.counts.planned) == (0, 12)
    assert (lift.complete.low, lift.complete.high) == (0.0, 1.0)
