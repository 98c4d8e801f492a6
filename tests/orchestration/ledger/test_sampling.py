"""The halving pruner against Optuna's own, and asked again after a crash."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.pruners import BasePruner, SuccessiveHalvingPruner

from study.orchestration.ledger.sampling import RestartableHalvingPruner

STEPS = (3, 6, 9, 12, 24)


def verdicts(pruner: BasePruner, seed: int, asked: int = 1) -> list[list[bool]]:
    """What a pruner says of twelve trials with random losses, each asked so often per report."""
    rng = random.Random(seed)
    study = optuna.create_study(pruner=pruner)
    found = []
    for _ in range(12):
        trial = study.ask()
        said: list[bool] = []
        for step in STEPS:
            trial.report(rng.random(), step)
            answers = {trial.should_prune() for _ in range(asked)}
            assert len(answers) == 1
            said += answers
            if said[-1]:
                break
        pruned = said[-1]
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if pruned else rng.random(), state=state)
        found.append(said)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("resource", "factor"), [(1, 2), (3, 2), (3, 3), (5, 4), (30, 2)])
def test_it_says_what_optunas_pruner_says(seed: int, resource: int, factor: int) -> None:
    stock = SuccessiveHalvingPruner(min_resource=resource, reduction_factor=factor)
    own = RestartableHalvingPruner(min_resource=resource, reduction_factor=factor)
    assert verdicts(own, seed) == verdicts(stock, seed)


def test_asked_again_it_says_the_same() -> None:
    found = verdicts(RestartableHalvingPruner(3, 2), seed=7, asked=3)
    assert found == verdicts(RestartableHalvingPruner(3, 2), seed=7)
    assert any(said[-1] for said in found)
