"""How many optimizer steps a trial takes: full's by its epochs, LIFT's by the comparison basis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from study.config.load import StudyConfig
from study.protocol.cost_model import (
    RunShape,
    Tariff,
    abstract_layout,
    cache_pays,
    equal_cost_steps,
    measured_tariff,
    predicted_tariff,
    price_phases,
)
from study.protocol.records import StepCosts
from study.strategies.lift import LiftStrategy

DEFAULT_EPOCHS = 3.0


@dataclass(frozen=True)
class ModelFacts:
    """What the plan must know of the model.

    Attributes:
        num_blocks: transformer blocks.
        probe: what steps cost, LIFT's in the structure that the `arms` section gives; None
            before it has run.
        prefix_cache: hidden states of a frozen prefix will be kept; asked before the probe only.
        tied: the head is the input embedding.
    """

    num_blocks: int
    probe: StepCosts | None = None
    prefix_cache: bool = False
    tied: bool = False


def full_steps(config: StudyConfig, size: int) -> int:
    """Optimizer steps of a full trial at a dataset size, floor included."""
    training = config.training
    if training.steps is not None:
        return training.steps
    epochs = DEFAULT_EPOCHS if training.epochs is None else training.epochs
    return max(training.min_steps, math.ceil(epochs * size / training.global_batch_size))


def trial_steps(
    config: StudyConfig,
    model: ModelFacts,
    arm: str,
    size: int,
    hyperparameters: Mapping[str, Any],
    seed: int = 0,
) -> int:
    """Optimizer steps of a trial on the study's comparison basis.

    LIFT gets full's steps (`tokens`), those times its number of groups, so that each group trains
    as long as full in one sweep or several (`updates_per_parameter`), or as many as cost the same
    (`device_seconds`); in every study at least one per phase.

    Args:
        seed: the trial's: a random order of the groups has its own cost.
    """
    steps = full_steps(config, size)
    if arm != "lift":
        return steps
    if len(config.arms.names) > 1:
        strategy = lift_strategy(config, hyperparameters)
        if config.comparison == "device_seconds":
            steps = _equal_cost_steps(config, model, size, strategy, seed)
        elif config.comparison == "updates_per_parameter":
            steps *= len(strategy.block_groups(model.num_blocks))
    return max(steps, least_steps(config, arm, hyperparameters, model.num_blocks))


def least_steps(
    config: StudyConfig, arm: str, hyperparameters: Mapping[str, Any], num_blocks: int
) -> int:
    """Optimizer steps without which a trial cannot end: one for each of its phases."""
    if arm != "lift":
        return 1
    return lift_strategy(config, hyperparameters).phase_count(num_blocks)


def _equal_cost_steps(
    config: StudyConfig, model: ModelFacts, size: int, strategy: LiftStrategy, seed: int
) -> int:
    """LIFT steps on the device_seconds basis: see `study.protocol.cost_model`."""
    tariff, run = study_tariff(config, model), _run_shape(config, size)
    # What no price depends on is left out, so that more trials share one answer.
    priced = dataclasses.replace(strategy, group_lr_decay=1.0, rewarmup_ratio=0.0)
    seed = seed if strategy.order == "random" else 0
    return equal_cost_steps(priced, model.num_blocks, model.tied, seed, tariff, run)


def _run_shape(config: StudyConfig, size: int) -> RunShape:
    """Of a size's trials; its first LIFT trial finds nothing kept."""
    return RunShape(
        full_steps=full_steps(config, size),
        first_pass=math.ceil(size / config.training.global_batch_size),
        evaluations=config.training.evaluations,
    )


def needs_probe(config: StudyConfig) -> bool:
    """Whether the arms' steps follow from what each of them costs."""
    return config.comparison == "device_seconds" and len(config.arms.names) == 2


def study_tariff(config: StudyConfig, model: ModelFacts) -> Tariff:
    """What a study's steps cost: as its probe measured, else as the cost model has it."""
    if model.probe is None:
        return predicted_tariff(model.prefix_cache)
    tariff = _probed_tariff(lift_strategy(config, {}), model)
    return tariff if prefix_cache_pays(config, model) else tariff.without_cache


def prefix_cache_pays(config: StudyConfig, model: ModelFacts) -> bool:
    """False where the probe has shown that a replicate's LIFT trials, over all dataset sizes, cost
    no less with the prefix cache than without: no trial uses it then."""
    if model.probe is None or model.probe.lift_step_cached is None:
        return True
    runs = tuple(_run_shape(config, size) for size in config.dataset_sizes)
    trials = config.search.trials + config.confirm.seeds
    return _cache_pays(lift_strategy(config, {}), model, runs, trials)


@lru_cache
def _cache_pays(
    strategy: LiftStrategy, model: ModelFacts, runs: tuple[RunShape, ...], trials: int
) -> bool:
    """Every trial's number of steps asks this anew, and the answer is one per study."""
    layout = abstract_layout(model.num_blocks, model.tied)
    least = strategy.phase_count(model.num_blocks)
    priced = [price_phases(strategy, layout, max(least, run.full_steps)) for run in runs]
    tariff = _probed_tariff(strategy, model)
    return cache_pays(list(zip(priced, runs, strict=True)), tariff, trials)


@lru_cache
def _probed_tariff(strategy: LiftStrategy, model: ModelFacts) -> Tariff:
    assert model.probe is not None  # the callers ask
    # The probe times one sweep: a later one would find its prefix trained.
    probed = dataclasses.replace(strategy, sweeps=1)
    layout = abstract_layout(model.num_blocks, model.tied)
    phases = price_phases(probed, layout, probed.phase_count(model.num_blocks))
    return measured_tariff(model.probe, phases)


def lift_strategy(config: StudyConfig, hyperparameters: Mapping[str, Any]) -> LiftStrategy:
    """LIFT in a trial's own structure: what its hyperparameters say, else what the arm does.

    Raises:
        UserError: the two together are no structure.
    """
    options = config.arms.lift.model_dump() if config.arms.lift else {}
    chosen = {k: v for k, v in hyperparameters.items() if k in LiftStrategy.option_names()}
    return LiftStrategy(**(options | chosen))


def check_structures(config: StudyConfig, model: ModelFacts) -> None:
    """Refuse a structure, the arm's or one that may be searched, that does not fit the model.

    Raises:
        UserError: it does not; a trial would find out too late.
    """
    searched = config.space().for_arm("lift")
    chosen: list[dict[str, Any]] = [{}]
    for name in ("groups", "always_active"):
        if name in searched:
            chosen += [{name: value} for value in searched[name].values()]
    layout = abstract_layout(model.num_blocks, model.tied)
    for values in chosen:
        strategy = lift_strategy(config, values)
        strategy.phases(layout, strategy.phase_count(model.num_blocks))


def evaluation_steps(steps: int, evaluations: int) -> tuple[int, ...]:
    """Evenly spaced steps after which validation loss is measured; the last is `steps`."""
    count = min(steps, evaluations)
    return tuple(round(steps * i / count) for i in range(1, count + 1))
