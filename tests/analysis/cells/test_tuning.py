"""Whether searches are long enough, and how many trials would be."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from study.analysis import Verdict, decide
from study.analysis.cells.best_of_k import expected_best
from study.analysis.cells.tuning import (
    ASSUMED_RANGE,
    last_gain,
    planned_trials,
    range_on_record,
    trials_needed,
)
from study.analysis.summary import gather_evidence
from study.config.load import StudyConfig
from study.protocol.results import StudyResults
from tests.analysis.comparisons import compare, full_minus_lift
from tests.helpers.results import make_config

BETTER = full_minus_lift(lambda n: 0.05)


def verdict(results: StudyResults, size: int = 400) -> Verdict:
    return decide(gather_evidence(results), size)


def with_rho(config: StudyConfig, rho: float) -> StudyConfig:
    return config.model_copy(update={"decision": config.decision.model_copy(update={"rho": rho})})


def test_there_is_no_verdict_while_more_trials_would_still_bring_more_than_rho() -> None:
    """The mean of two trials is half their distance above the better one."""
    assert verdict(compare(BETTER, gain=0.018)).answer == "better"
    found = verdict(compare(BETTER, gain=0.04))
    assert found.answer == "not_enough_evidence"
    (gate,) = found.failed_gates
    assert gate.name == "Search length"
    assert "full: 0.0200 nats from 1 to 2 trials at 400" in gate.found
    # 0.02 nats were won from 1 to 2 trials, so losses lie over 0.12 nats: the second half of 10
    # trials brings 0.12 * (1/6 - 1/11) = 0.0091 nats, that of 8 still 0.0107.
    assert gate.remedy == "Raise `search.trials`, to about 10."
    assert found.next_runs and all("search.trials: 10" in run.change for run in found.next_runs)


def test_what_matters_is_rho() -> None:
    assert verdict(compare(BETTER, gain=0.04, decision={"rho": 0.021})).answer == "better"


def test_only_the_sizes_next_to_the_asked_one_are_looked_at() -> None:
    results = compare(BETTER, gain={1600: 0.04})
    assert verdict(results, 400).answer == verdict(results, 800).answer == "better"
    for size in (1600, 1200):
        (gate,) = verdict(results, size).failed_gates
        assert gate.name == "Search length" and "at 1,600" in gate.found


def one_trial(**changes: Any) -> StudyResults:
    results = compare(BETTER, **changes)
    search = results.config.search.model_copy(update={"trials": 1})
    trials = tuple(t for t in results.trials if not t.spec.trial_id.endswith("s1"))
    return dataclasses.replace(
        results, trials=trials, config=results.config.model_copy(update={"search": search})
    )


def test_a_search_of_one_trial_is_a_draw_and_one_over_a_single_value_is_none() -> None:
    found = verdict(one_trial())
    assert [gate.name for gate in found.failed_gates] == ["Search length"]
    assert "full: one trial; LIFT: one trial" in found.failed_gates[0].found
    results = one_trial()
    fixed = {"learning_rate": 3e-5, "warmup_ratio": 0.0, "max_grad_norm": 1.0}
    search = results.config.search.model_copy(update={"space": {"shared": fixed}, "overrides": {}})
    config = results.config.model_copy(update={"search": search})
    assert verdict(dataclasses.replace(results, config=config)).answer == "better"
    assert planned_trials(config) == 1


def test_the_expected_gain_is_that_of_searches_drawn() -> None:
    losses = np.random.default_rng(0).uniform(0, 0.1, (4000, 8))
    best = np.mean([expected_best(row) for row in losses], axis=0)
    assert last_gain(0.1, 8) == pytest.approx(best[3] - best[7], rel=0.03)


@pytest.mark.parametrize("rho", [0.3, 0.02, 0.0167, 0.0166, 0.01, 0.005, 0.0007])
def test_the_trials_needed_are_the_fewest_whose_second_half_brings_no_more_than_rho(
    rho: float,
) -> None:
    needed = trials_needed(ASSUMED_RANGE, rho)
    assert last_gain(ASSUMED_RANGE, needed) <= rho
    assert needed == 2 or last_gain(ASSUMED_RANGE, needed - 2) > rho
    config = make_config(trials=3)
    assert planned_trials(with_rho(config, rho)) == max(3, needed)


def test_the_range_on_record_is_that_of_the_widest_search() -> None:
    evidence = gather_evidence(compare(BETTER, gain=0.04))
    # Of two losses anywhere on a range, the mean is a sixth of it above the lower.
    assert range_on_record(evidence.tuning) == pytest.approx(6 * 0.02)
    assert range_on_record(evidence.tuning, (7,)) is None
    assert planned_trials(evidence.config, evidence.tuning) == 10
