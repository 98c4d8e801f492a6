"""A factory of realistic `StudyResults`: seeded synthetic records in every state.

Losses follow a power law in the dataset size, a parabola in log learning rate and noise, so a
report drawn from them looks like a real one. Nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from study.config.load import StudyConfig
from study.protocol.records import (
    BaseModelRecord,
    DataSummary,
    Measurement,
    PhaseSummary,
    PrefixCacheUse,
    Stage,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from study.protocol.results import StudyResults
from tests.helpers.costs import step_costs

BASE_LOSS = 4.63
BASE_RETENTION = 3.94
PARAMETERS = 1_234_944
MODEL_FINGERPRINT, TRAIN_FINGERPRINT = "folder-1:00ff", "files-1:11ee"
STARTED = 1_760_000_000.0
VERSIONS = {"torch": "2.13.0", "transformers": "5.23.0", "deepspeed": "0.19.8", "ray": "2.60.0"}
# Loss = floor + scale * size ** -exponent at the best learning rate; LIFT wins below about 300
# examples. Then: retention rise per nat learned, steps per full step at equal cost.
ARMS = {"full": (3.70, 3.0, 0.42, 6e-4, 0.30, 1.0), "lift": (3.80, 1.6, 0.38, 1.1e-3, 0.12, 1.61)}
# The search space that `make_results` draws from, as overrides of the default one.
DRAWN_FROM = {
    "learning_rate": {"low": 1e-5, "high": 5.1e-3},
    "max_grad_norm": {"high": 3.2},
}


def make_config(
    *,
    arms: Sequence[str] = ("full", "lift"),
    sizes: Sequence[int] = (64, 128, 256, 512),
    replicates: int = 3,
    trials: int = 4,
    confirm_seeds: int = 2,
    overrides: dict[str, Any] | None = None,
    **changes: Any,
) -> StudyConfig:
    """A validated study file; `overrides` are the search space's, `changes` replace whole
    top-level sections."""
    fields: dict[str, Any] = {
        "name": "synthetic",
        "model": {"path": "models/tiny-llama"},
        "data": {"train": "data/functions.jsonl", "prompt": "{signature}\n", "response": "{body}"},
        "dataset_sizes": list(sizes),
        "arms": {arm: {} for arm in arms},
        "search": {"trials": trials, "replicates": replicates, "overrides": overrides or {}},
        "confirm": {"seeds": confirm_seeds},
        "training": {"global_batch_size": 8, "epochs": 3, "sequence_length": 128},
    }
    return StudyConfig.model_validate(fields | changes)


def make_trial(
    arm: str = "full",
    size: int = 64,
    replicate: int = 0,
    *,
    stage: Stage = Stage.SEARCH,
    index: int = 0,
    score: float | None = None,
    test_loss: float | None = None,
    retention_loss: float | None = None,
    hyperparameters: dict[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
    status: str = "finished",
    reason: str = "",
    steps: int = 100,
    device_seconds: float = 20.0,
    peak_memory_bytes: int = 700 * 2**20,
    prefix_cache: PrefixCacheUse | None = None,
) -> TrialRecord:
    """One trial with the numbers given; its validation loss falls to `score` at the last of five
    evaluations. WAITING and RUNNING trials have no outcome."""
    letter = "s" if stage is Stage.SEARCH else "c"
    evaluations = tuple(round(steps * k / 5) for k in range(1, 6))
    spec = TrialSpec(
        trial_id=f"{arm}-n{size}-r{replicate}-{letter}{index}",
        arm=arm,
        size=size,
        replicate=replicate,
        stage=stage,
        index=index,
        seed=1000 + 10 * replicate + index + (500 if stage is Stage.CONFIRM else 0),
        subset_seed=size * 10 + replicate,
        order_seed=size * 10 + replicate + (index + 1 if stage is Stage.CONFIRM else 0),
        steps=steps,
        evaluation_steps=evaluations,
        hyperparameters={"learning_rate": 3e-5} if hyperparameters is None else hyperparameters,
    )
    if state is TrialState.WAITING:
        return TrialRecord(spec, state)
    done = 5 if state is TrialState.COMPLETE and status != "stopped_early" else 3
    curve = _curve(score, done)
    measurements = tuple(
        _measure(spec, k, loss, done, device_seconds, peak_memory_bytes)
        for k, loss in enumerate(curve)
    )
    if state is TrialState.RUNNING:
        return TrialRecord(spec, state, measurements, started=STARTED)
    outcome = TrialOutcome(
        status=status,
        reason=reason,
        score=min(curve, default=None),
        best_step=evaluations[len(curve) - 1] if curve else None,
        phases=_phases(arm, steps, device_seconds, peak_memory_bytes),
        train_seconds=device_seconds * 0.4,
        device_seconds=device_seconds,
        prefix_cache=prefix_cache,
        test_loss=test_loss,
        test_losses=() if test_loss is None else (test_loss - 0.5, test_loss + 0.5),
        retention_loss=retention_loss,
        versions=VERSIONS,
        deepspeed_config={"train_batch_size": 8, "zero_optimization": {"stage": 2}},
    )
    finished = STARTED + device_seconds / 2
    job = f"synthetic-{spec.trial_id}"
    return TrialRecord(spec, state, measurements, outcome, job, STARTED, finished)


def make_results(
    *,
    progress: float = 1.0,
    failures: Sequence[str] = (),
    pruned: Sequence[str] = (),
    stopped_early: Sequence[str] = (),
    failure_reason: str = "loss became NaN at step 60 (learning rate 4.1e-03)",
    all_failed: bool = False,
    seed: int = 0,
    config: StudyConfig | None = None,
    **shape: Any,
) -> StudyResults:
    """A whole study.

    Args:
        progress: share of the plan's trials that have ended; the next two run, the rest wait, and
            confirm trials of unfinished searches are not on record, as in the store.
        failures, pruned, stopped_early: trial ids that end so.
        all_failed: every trial that ended failed.
        shape: for `make_config`, when `config` is None.
    """
    config = config or make_config(**{"overrides": DRAWN_FROM} | shape)
    random = np.random.default_rng(seed)

    def spoil(trial: TrialRecord) -> TrialRecord:
        lost = [trial.spec.trial_id] if all_failed else failures
        return _ended_badly(trial, lost, pruned, stopped_early, failure_reason)

    trials: list[TrialRecord] = []
    for arm in config.arms.names:
        for size in config.dataset_sizes:
            for replicate in range(config.search.replicates):
                trials += _replicate(config, arm, size, replicate, random, spoil)
    trials.sort(key=lambda t: t.spec.stage is Stage.CONFIRM)
    ended = round(progress * len(trials))
    trials = [_not_ended(t, k - ended) if k >= ended else t for k, t in enumerate(trials)]
    searching = {_cell(t) for t in trials if t.spec.stage is Stage.SEARCH and t.finished is None}
    trials = [t for t in trials if t.spec.stage is Stage.SEARCH or _cell(t) not in searching]
    return StudyResults(
        config=config,
        trials=tuple(trials),
        base=BaseModelRecord(BASE_LOSS - 0.02, BASE_LOSS, BASE_RETENTION),
        data=DataSummary("9f86d081884c7d65", 900, 100, 120, 200, 14, 37, 2, 92.4, 61.8),
        probe=step_costs(0.161, 0.1) if "lift" in config.arms.names else None,
        model_parameters=PARAMETERS,
        seconds=431.0,
        model_fingerprint=MODEL_FINGERPRINT,
        train_fingerprint=TRAIN_FINGERPRINT,
        num_blocks=4,
    )


def _replicate(
    config: StudyConfig,
    arm: str,
    size: int,
    replicate: int,
    random: np.random.Generator,
    spoil: Callable[[TrialRecord], TrialRecord],
) -> list[TrialRecord]:
    floor, scale, exponent, best_rate, forgets, step_factor = ARMS[arm]
    subset = random.normal(0, 0.02)
    full_steps = max(config.training.min_steps, 3 * size // config.training.global_batch_size)
    steps = round(full_steps * step_factor)
    made = []
    for index in range(config.search.trials):
        rate = float(10 ** random.uniform(-5, -2.3))
        loss = floor + scale * size**-exponent + subset
        loss += 0.12 * math.log10(rate / best_rate) ** 2 + abs(random.normal(0, 0.01))
        choice = {
            "learning_rate": float(f"{rate:.3g}"),
            "warmup_ratio": round(float(random.uniform(0, 0.1)), 3),
            "max_grad_norm": round(float(10 ** random.uniform(-0.5, 0.5)), 2),
        }
        made.append(
            make_trial(
                arm,
                size,
                replicate,
                index=index,
                score=loss,
                hyperparameters=choice,
                steps=steps,
                device_seconds=full_steps * 0.08 * float(random.normal(1, 0.03)),
                peak_memory_bytes=round((690 if arm == "full" else 640) * 2**20 + size * 1e5),
                prefix_cache=_cache_use(arm, steps, warm=replicate > 0 or index > 0),
            )
        )
    made = [spoil(trial) for trial in made]
    able = [t for t in made if t.state is TrialState.COMPLETE]
    if not able:
        return made
    winner = min(able, key=lambda t: t.score or math.inf)
    best = winner.score or math.inf
    for index in range(config.confirm.seeds):
        score = best + float(random.normal(0, 0.008))
        made.append(
            spoil(
                make_trial(
                    arm,
                    size,
                    replicate,
                    stage=Stage.CONFIRM,
                    index=index,
                    score=score,
                    steps=steps,
                    test_loss=score + 0.03 + float(random.normal(0, 0.008)),
                    retention_loss=BASE_RETENTION + forgets * (BASE_LOSS - score),
                    hyperparameters=winner.spec.hyperparameters,
                    device_seconds=full_steps * 0.08 * float(random.normal(1.02, 0.03)),
                    peak_memory_bytes=round((690 if arm == "full" else 640) * 2**20 + size * 1e5),
                    prefix_cache=_cache_use(arm, steps, warm=True),
                )
            )
        )
    return made


def _cache_use(arm: str, steps: int, warm: bool) -> PrefixCacheUse | None:
    """Eight examples a step, three steps in four with a prefix; the first trial fills."""
    if arm == "full":
        return None
    misses, bytes_each = 0 if warm else 2 * steps, 30_000
    return PrefixCacheUse(
        status="on",
        hits=6 * steps - misses,
        misses=misses,
        bytes_written=misses * bytes_each,
        bytes_on_node=2 * steps * bytes_each,
        fill_seconds=misses * 0.004,
        seconds_saved=(6 * steps - misses) * 0.003,
        cold_seconds=2 * steps * 0.004 if warm else 0.0,
    )


def _cell(trial: TrialRecord) -> tuple[str, int, int]:
    return trial.spec.arm, trial.spec.size, trial.spec.replicate


def _curve(score: float | None, evaluations: int) -> list[float]:
    if score is None:
        return []
    return [
        score + (BASE_LOSS - score) * 0.45 * (evaluations - k) / evaluations
        for k in range(1, evaluations + 1)
    ]


def _measure(
    spec: TrialSpec, k: int, loss: float, done: int, device_seconds: float, peak: int
) -> Measurement:
    step = spec.evaluation_steps[k]
    spent = device_seconds * (k + 1) / done
    return Measurement(
        step=step,
        tokens=step * 8 * 92,
        epoch=step * 8 / spec.size,
        phase=0 if spec.arm == "full" else min(3, k * 4 // 5),
        train_loss=loss - 0.05,
        validation_loss=loss,
        learning_rate=float(spec.hyperparameters.get("learning_rate", 0.0)) * (5 - k) / 5,
        grad_norm=1.2,
        clipped_share=0.4,
        tokens_per_second=6700.0,
        seconds=spent / 2,
        device_seconds=spent,
        peak_memory_bytes=peak,
    )


def _phases(arm: str, steps: int, seconds: float, peak: int) -> tuple[PhaseSummary, ...]:
    if arm == "full":
        return (_phase("all parameters", steps, PARAMETERS, 0.4, seconds * 0.4, peak),)
    return tuple(
        _phase(
            f"group {g} (blocks {g - 1}-{g - 1}), sweep 1",
            len(range(4 - g, steps, 4)),
            PARAMETERS // 4,
            0.2,
            seconds * 0.1,
            peak,
        )
        for g in (4, 3, 2, 1)
    )


def _phase(
    name: str, steps: int, trained: int, switch: float, seconds: float, peak: int
) -> PhaseSummary:
    """fp32 on stage 2 with one rank: gradients, master weights and moments; gradients twice."""
    return PhaseSummary(name, steps, trained, switch, seconds, peak, 16 * trained, 20 * trained)


def _ended_badly(
    trial: TrialRecord,
    fail: Sequence[str],
    pruned: Sequence[str],
    early: Sequence[str],
    reason: str,
) -> TrialRecord:
    assert trial.outcome is not None
    name = trial.spec.trial_id
    if name in fail:
        status = "diverged" if "NaN" in reason else "error"
        lost = replace(
            trial.outcome,
            status=status,
            reason=reason,
            score=None,
            test_loss=None,
            test_losses=(),
            retention_loss=None,
        )
        return replace(trial, state=TrialState.FAIL, outcome=lost, measurements=())
    kept = trial.measurements[:3]
    if name in pruned:
        return replace(trial, state=TrialState.PRUNED, measurements=kept, outcome=None)
    if name in early:
        stop = replace(trial.outcome, status="stopped_early", reason="no new lowest for 2")
        return replace(
            trial,
            measurements=kept,
            outcome=replace(
                stop,
                score=min(m.validation_loss for m in kept),
                device_seconds=kept[-1].device_seconds,
            ),
        )
    return trial


def _not_ended(trial: TrialRecord, position: int) -> TrialRecord:
    if position < 2:
        return replace(
            trial,
            state=TrialState.RUNNING,
            outcome=None,
            finished=None,
            measurements=trial.measurements[:2],
        )
    return TrialRecord(trial.spec, TrialState.WAITING)


def with_metrics(results: StudyResults) -> StudyResults:
    """The same of a classifier: accuracy and macro-F1 that follow from each loss."""

    def metrics(loss: float | None) -> dict[str, float]:
        if loss is None:
            return {}
        return {"accuracy": math.exp(-loss / 5), "macro_f1": math.exp(-loss / 4)}

    def told(trial: TrialRecord) -> TrialRecord:
        measurements = tuple(
            replace(m, validation_metrics=metrics(m.validation_loss)) for m in trial.measurements
        )
        outcome = trial.outcome
        if outcome is not None:
            outcome = replace(outcome, test_metrics=metrics(outcome.test_loss))
        return replace(trial, measurements=measurements, outcome=outcome)

    data = {"train": "data/mail.jsonl", "text": "text", "label": "kind"}
    fields = results.config.to_dict() | {"task": "sequence-classification", "data": data}
    return replace(
        results,
        config=StudyConfig.model_validate(fields),
        trials=tuple(map(told, results.trials)),
    )
