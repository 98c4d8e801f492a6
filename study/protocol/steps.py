"""How many optimizer steps a trial takes: the first arm's by the study file's epochs, another's by
the comparison basis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from study.config.load import StudyConfig
from study.protocol.cost_model import (
    PhasePrice,
    RunShape,
    Tariff,
    abstract_layout,
    cache_pays,
    equal_cost_steps,
    measured_tariff,
    predicted_tariff,
    price_phases,
    run_seconds,
)
from study.protocol.records import StepCosts
from study.strategies import STRATEGIES, Strategy, make_strategy

DEFAULT_EPOCHS = 3.0


@dataclass(frozen=True)
class ModelFacts:
    """What the plan must know of the model.

    Attributes:
        num_blocks: transformer blocks.
        probe: what steps cost in the structures that the `arms` section gives; None before it has
            run.
        prefix_cache: hidden states of a frozen prefix will be kept; asked before the probe only.
        tied: the head is the input embedding.
    """

    num_blocks: int
    probe: StepCosts | None = None
    prefix_cache: bool = False
    tied: bool = False


def full_steps(config: StudyConfig, size: int) -> int:
    """Optimizer steps that the study file asks for at a dataset size, floor included."""
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

    The first arm has the steps that the study file asks for. Another has as many (`tokens`), as
    many as give each parameter as many updates (`updates_per_parameter`; LIFT: those times its
    number of groups, in one sweep or several), or as many as cost the same (`device_seconds`);
    every trial at least one per phase.

    Args:
        seed: the trial's: a random order of the groups has its own cost.
    """
    steps, strategy = full_steps(config, size), trial_strategy(config, arm, hyperparameters)
    reference = config.arms.names[0]
    if arm != reference:
        if config.comparison == "device_seconds":
            steps = _equal_cost_steps(config, model, arm, size, strategy, seed)
        elif config.comparison == "updates_per_parameter":
            blocks = model.num_blocks
            other = trial_strategy(config, reference, {}).steps_per_round(blocks)
            steps = math.ceil(steps * strategy.steps_per_round(blocks) / other)
    return max(steps, strategy.phase_count(model.num_blocks))


def least_steps(
    config: StudyConfig, arm: str, hyperparameters: Mapping[str, Any], num_blocks: int
) -> int:
    """Optimizer steps without which a trial cannot end: one for each of its phases."""
    return trial_strategy(config, arm, hyperparameters).phase_count(num_blocks)


def _equal_cost_steps(
    config: StudyConfig, model: ModelFacts, arm: str, size: int, strategy: Strategy, seed: int
) -> int:
    """Steps on the device_seconds basis: see `study.protocol.cost_model`."""
    reference, run = config.arms.names[0], _run_shape(config, size)
    steps = trial_steps(config, model, reference, size, {})
    budget = trial_seconds(config, model, reference, {}, steps, run)
    tariff, seed = arm_tariff(config, model, arm), seed if strategy.draws else 0
    priced = strategy.as_priced()
    return equal_cost_steps(priced, model.num_blocks, model.tied, seed, tariff, budget, run)


def trial_seconds(
    config: StudyConfig,
    model: ModelFacts,
    arm: str,
    hyperparameters: Mapping[str, Any],
    steps: int,
    run: RunShape,
    seed: int = 0,
) -> float:
    """What a trial costs by `arm_tariff`."""
    strategy = trial_strategy(config, arm, hyperparameters)
    layout = abstract_layout(model.num_blocks, model.tied)
    prices = price_phases(strategy, layout, steps, seed)
    return run_seconds(prices, arm_tariff(config, model, arm), run)


def _run_shape(config: StudyConfig, size: int) -> RunShape:
    """Of a size's trials, of which the first finds nothing kept."""
    return RunShape(
        first_pass=math.ceil(size / config.training.global_batch_size),
        evaluations=config.training.evaluations,
    )


def needs_probe(config: StudyConfig) -> bool:
    """Whether the arms' steps follow from what each of them costs."""
    return config.comparison == "device_seconds" and len(config.arms.names) > 1


def arm_tariff(config: StudyConfig, model: ModelFacts, arm: str) -> Tariff:
    """What an arm's steps cost: as the study's probe measured, else as the cost model has it."""
    if model.probe is None:
        return predicted_tariff(model.prefix_cache)
    tariff = _probed_tariff(config, model, model.probe, arm)
    return tariff if prefix_cache_pays(config, model) else tariff.without_cache


def prefix_cache_pays(config: StudyConfig, model: ModelFacts) -> bool:
    """False where the probe has shown that a replicate's trials of an arm, over all dataset sizes,
    cost no less with the prefix cache than without: no trial uses it then."""
    probe = model.probe
    if probe is None:
        return True
    runs = tuple((full_steps(config, n), _run_shape(config, n)) for n in config.dataset_sizes)
    trials = config.search.trials + config.confirm.seeds
    return all(
        _cache_pays(
            trial_strategy(config, arm, {}),
            model.num_blocks,
            model.tied,
            _probed_tariff(config, model, probe, arm),
            runs,
            trials,
        )
        for arm in config.arms.names
        if probe.arms[arm].step_cached is not None
    )


@lru_cache
def _cache_pays(
    strategy: Strategy,
    blocks: int,
    tied: bool,
    tariff: Tariff,
    runs: tuple[tuple[int, RunShape], ...],
    trials: int,
) -> bool:
    """Every trial's number of steps asks this anew, and the answer is one per study."""
    layout, least = abstract_layout(blocks, tied), strategy.phase_count(blocks)
    priced = [(price_phases(strategy, layout, max(least, steps)), run) for steps, run in runs]
    return cache_pays(priced, tariff, trials)


def _probed_tariff(config: StudyConfig, model: ModelFacts, probe: StepCosts, arm: str) -> Tariff:
    probed = trial_strategy(config, arm, {}).as_probed()
    return measured_tariff(probe, arm, _shortest(probed, model.num_blocks, model.tied))


@lru_cache
def _shortest(strategy: Strategy, blocks: int, tied: bool) -> tuple[PhasePrice, ...]:
    layout = abstract_layout(blocks, tied)
    return price_phases(strategy, layout, strategy.phase_count(blocks))


def trial_strategy(config: StudyConfig, arm: str, hyperparameters: Mapping[str, Any]) -> Strategy:
    """A trial's own: with the options of its hyperparameters, else those of the study file.

    Raises:
        UserError: the two together are no structure.
    """
    section = config.arms.strategy(arm)
    if section is None:
        return make_strategy(arm, {}, hyperparameters)
    if hyperparameters.keys().isdisjoint(STRATEGIES[arm].model_fields):
        return section  # every trial's steps ask for it, and the study file was validated
    return make_strategy(arm, section.model_dump(), hyperparameters)


def possible_strategies(config: StudyConfig, arm: str) -> list[Strategy]:
    """The arm's own, and each with one other value of an option of its structure, where a search
    may choose it: both ends of a range."""
    searched = config.space().for_arm(arm)
    chosen: list[dict[str, Any]] = [{}]
    for name in STRATEGIES[arm].structure:
        if name in searched:
            chosen += [{name: value} for value in searched[name].values()]
    return [trial_strategy(config, arm, values) for values in chosen]


def check_structures(config: StudyConfig, model: ModelFacts) -> None:
    """Refuse a structure, an arm's or one that may be searched, that does not fit the model.

    Raises:
        UserError: it does not; a trial would find out too late.
    """
    layout = abstract_layout(model.num_blocks, model.tied)
    for arm in config.arms.names:
        for strategy in possible_strategies(config, arm):
            strategy.phases(layout, strategy.phase_count(model.num_blocks))


def evaluation_steps(steps: int, evaluations: int) -> tuple[int, ...]:
    """Evenly spaced steps after which validation loss is measured; the last is `steps`."""
    count = min(steps, evaluations)
    return tuple(round(steps * i / count) for i in range(1, count + 1))
