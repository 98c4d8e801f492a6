"""Whole studies of both arms whose numbers a test decides, with a flat end of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from study.config.load import StudyConfig
from study.protocol.records import BaseModelRecord, Stage, TrialOutcome, TrialRecord, TrialState
from study.protocol.results import StudyResults
from tests.helpers.results import BASE_LOSS, make_config, make_trial

Losses = Callable[[str, int], float]
"""Mean test loss of (arm, size), nats."""
EXAMPLES = 80
BASE = BaseModelRecord(
    validation_loss=BASE_LOSS,
    test_loss=BASE_LOSS,
    retention_loss=3.0,
    test_losses=(BASE_LOSS,) * EXAMPLES,
    test_targets=(1,) * EXAMPLES,
)
SIZES = (100, 200, 400, 800, 1600)


def full_minus_lift(difference: Callable[[int], float]) -> Losses:
    """Losses whose difference is that one."""
    return lambda arm, size: 4.0 + (difference(size) if arm == "full" else 0.0)


def compare(
    losses: Losses,
    *,
    noise: float = 0.001,
    replicates: int = 4,
    sizes: tuple[int, ...] = SIZES,
    costs: Mapping[str, float] = {"full": 20.0, "lift": 20.0},
    memory_mib: Mapping[str, int] = {"full": 900, "lift": 300},
    rates: Mapping[str, float] = {"full": 3e-5, "lift": 3e-5},
    retention: Losses = lambda arm, size: 3.2,
    accuracy: Losses | None = None,
    diverged: Mapping[str, int] = {},
    falling: float | Mapping[int, float] = 0.0,
    gain: float | Mapping[int, float] = 0.01,
    seed: int = 0,
    **changes: Any,
) -> StudyResults:
    """A finished study of two search trials and two confirm seeds.

    Args:
        noise: sd over replicates and over seeds, nats; also over test examples.
        rates: each arm's winning learning rate, in a range of 2e-5 to 5e-5.
        diverged: search trials per arm and size, beside the planned ones, that diverged.
        falling: nats by which validation loss falls over the last fifth of a confirm run, at all
            sizes or by size.
        gain: nats between the two search trials of a replicate, at all sizes or by size.
    """
    config = make_config(sizes=sizes, replicates=replicates, trials=2, **changes)
    random, trials = np.random.default_rng(seed), list[TrialRecord]()
    for arm in config.arms.names:
        for size in sizes:
            for replicate in range(replicates):
                level = losses(arm, size) + random.normal(0, noise)
                chosen = {"learning_rate": rates[arm]}
                cost, peak = costs[arm], memory_mib[arm] * 2**20
                common: dict[str, Any] = {"device_seconds": cost, "peak_memory_bytes": peak}
                second = gain.get(size, 0.01) if isinstance(gain, Mapping) else gain
                for index, gap in enumerate((0.0, second)):
                    hyperparameters = chosen if not index else {"learning_rate": 2.7e-5}
                    trials.append(
                        make_trial(
                            arm, size, replicate, index=index, score=level + gap,
                            hyperparameters=hyperparameters, **common,
                        )
                    )  # fmt: skip
                for index in range(diverged.get(arm, 0) if not replicate else 0):
                    trials.append(
                        make_trial(
                            arm, size, replicate, index=2 + index, state=TrialState.FAIL,
                            status="diverged", **common,
                        )
                    )  # fmt: skip
                for index in range(2):
                    found = level + random.normal(0, noise)
                    run = make_trial(
                        arm, size, replicate, stage=Stage.CONFIRM, index=index, score=found,
                        test_loss=found, retention_loss=retention(arm, size),
                        hyperparameters=chosen, **common,
                    )  # fmt: skip
                    examples = random.normal(0, noise, EXAMPLES)
                    fall = falling.get(size, 0.0) if isinstance(falling, Mapping) else falling
                    trials.append(_flat(run, found + examples - examples.mean(), fall))
                    if accuracy is not None:
                        trials[-1] = _outcome(
                            trials[-1], test_metrics={"accuracy": accuracy(arm, size)}
                        )
    return StudyResults(_narrow(config), tuple(trials), BASE)


def _narrow(config: StudyConfig) -> StudyConfig:
    overrides = {"learning_rate": {"low": 2e-5, "high": 5e-5}}
    search = config.search.model_copy(update={"overrides": overrides})
    return config.model_copy(update={"search": search})


def _flat(run: TrialRecord, examples: np.ndarray, falling: float) -> TrialRecord:
    measured = tuple(
        replace(m, validation_loss=(run.score or 0.0) + (falling if k < 4 else 0.0))
        for k, m in enumerate(run.measurements)
    )
    return _outcome(replace(run, measurements=measured), test_losses=tuple(examples.tolist()))


def _outcome(run: TrialRecord, **changes: Any) -> TrialRecord:
    outcome = run.outcome
    assert isinstance(outcome, TrialOutcome)
    return replace(run, outcome=replace(outcome, **changes))
