"""Where winners lie in the searched range of learning rates."""

from __future__ import annotations

from typing import Any

import pytest

from study.analysis.learning_rates import LearningRates, learning_rates
from study.analysis.summary import summarise
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from tests.helpers.results import make_config, make_trial


def space(learning_rate: Any) -> dict[str, Any]:
    return {"shared": {"learning_rate": learning_rate, "warmup_ratio": 0.1, "max_grad_norm": 1.0}}


def searched(
    rates: list[list[float]], learning_rate: Any, losses: list[list[float]] | None = None
) -> tuple[LearningRates, ...]:
    """One replicate per list; its first rate wins unless `losses` say otherwise."""
    config = make_config(
        arms=["full"],
        sizes=[64],
        search={"space": space(learning_rate), "trials": len(rates[0]), "replicates": len(rates)},
    )
    trials = tuple(
        make_trial(
            "full",
            64,
            m,
            index=k,
            score=3.0 + 0.1 * k if losses is None else losses[m][k],
            hyperparameters={"learning_rate": rate, "warmup_ratio": 0.1, "max_grad_norm": 1.0},
        )
        for m, replicate in enumerate(rates)
        for k, rate in enumerate(replicate)
    )
    results = StudyResults(config, trials)
    return learning_rates(results, summarise(results))


RANGE = {"low": 1e-6, "high": 1e-4, "log": True}


def test_the_outer_tenths_are_of_the_log_range() -> None:
    """Two decades: a tenth is 0.2 of one, so the inner ends are 10^-5.8 and 10^-4.2."""
    rates = [[10**-5.81], [10**-5.79], [10**-4.21], [10**-4.19], [1e-4], [1e-6], [1e-5]]
    (found,) = searched(rates, RANGE)
    assert (found.bounds.low, found.bounds.high) == (1e-6, 1e-4)
    assert (found.bounds.low_end, found.bounds.high_end) == pytest.approx((10**-5.8, 10**-4.2))
    assert (found.winners, found.winners_low, found.winners_high) == (7, 2, 2)


def test_only_winners_count_and_losses_are_above_the_replicates_own_best() -> None:
    (found,) = searched([[1e-6, 1e-5], [2e-5, 1e-4]], RANGE, losses=[[4.5, 4.0], [3.0, 3.2]])
    assert [(t.replicate, t.winner) for t in found.trials] == [
        (0, False),
        (0, True),
        (1, True),
        (1, False),
    ]
    assert [t.excess for t in found.trials] == pytest.approx([0.5, 0.0, 0.0, 0.2])
    assert (found.winners, found.winners_low, found.winners_high) == (2, 0, 0)


@pytest.mark.parametrize("learning_rate", [1e-5, {"choices": [1e-6, 1e-5]}])
def test_what_is_no_range_has_no_ends(learning_rate: Any) -> None:
    assert searched([[1e-5]], learning_rate) == ()


def test_pruned_and_failed_trials_are_not_there() -> None:
    config = make_config(
        arms=["full"], sizes=[64], search={"space": space(RANGE), "trials": 3, "replicates": 1}
    )
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    trials = tuple(
        make_trial("full", index=k, score=4.0 - k, state=state) for k, state in enumerate(states)
    )
    results = StudyResults(config, trials)
    (found,) = learning_rates(results, summarise(results))
    assert [(t.excess, t.winner) for t in found.trials] == [(0.0, True)]
