"""Which point a trial tries, and when it may be stopped: Optuna's samplers and pruners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from study.plan import StudyPlan
from study.records import TrialSpec


class FixedPointSampler(BaseSampler):
    """Answers every parameter from a given point, so that a design drawn in the plan goes
    through `Study.ask` like any sampler's suggestion and stays free of process state."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self._point = dict(point)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict:
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict) -> dict:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._point[param_name]


def make_sampler(plan: StudyPlan, spec: TrialSpec) -> BaseSampler:
    """A fresh sampler for one trial: its answer depends on the seed, the plan index and the
    finished results, never on what this process did before."""
    if spec.hyperparameters:
        return FixedPointSampler(spec.hyperparameters)
    seed = plan.sampler_seed(spec)
    if plan.config.search.sampler == "tpe":
        return TPESampler(seed=seed)
    return RandomSampler(seed=seed)


def make_pruner(plan: StudyPlan) -> BasePruner:
    """The study's pruner. Its resource is the optimizer step, and its first rung lies beyond the
    longest warmup: before that, learning rates are compared that nobody asked for."""
    name = plan.config.search.pruner
    if name == "none":
        return NopPruner()
    steps = min(spec.evaluation_steps[plan.first_rung - 1] for spec in plan.search)
    if name == "asha":
        return SuccessiveHalvingPruner(min_resource=steps, reduction_factor=2)
    return MedianPruner(n_startup_trials=2, n_warmup_steps=steps - 1)
