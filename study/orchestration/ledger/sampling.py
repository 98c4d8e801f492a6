"""Which point a trial tries, and when it may be stopped: Optuna's samplers and pruners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from study.protocol.plan import StudyPlan, cell_of
from study.protocol.records import TrialSpec
from study.store.attributes import SPEC
from study.store.study_store import StudyStore


def begin_trial(plan: StudyPlan, store: StudyStore, spec: TrialSpec) -> TrialSpec:
    """Ask for a trial's hyperparameters, and have it RUNNING on record. One that a killed driver
    left is taken up again under its own number.

    Returns:
        The spec with hyperparameters and steps.
    """
    domains = plan.resolved.space().for_arm(spec.arm)
    distributions = {name: domain.distribution() for name, domain in domains.items()}
    trial = store.left_running(spec, distributions)
    if trial is None:
        study = store.optuna_study(cell_of(spec), spec.stage)
        study.sampler = make_sampler(plan, spec)
        trial = study.ask(distributions)
    resolved = plan.resolve(spec, trial.params)
    store.begin(resolved, trial)
    return resolved


def is_pruned(store: StudyStore, spec: TrialSpec, pruner: BasePruner) -> bool:
    """Whether `pruner` stops a running search trial, among the finished ones of its replicate."""
    return pruner.prune(store.optuna_study(cell_of(spec), spec.stage), store.frozen(spec))


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


class RestartableHalvingPruner(BasePruner):
    """Optuna's asynchronous successive halving for trials that run one after the other, as a
    function of what they reported alone.

    The stock pruner marks a rung as passed before its verdict is told, so that a trial which is
    asked again after a crash has passed it. Here nothing is marked: the trials before are
    replayed.
    """

    def __init__(self, min_resource: int, reduction_factor: int) -> None:
        self._first, self._factor = min_resource, reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        rungs: dict[int, list[float]] = defaultdict(list)
        for other in study.get_trials(deepcopy=False):
            if other.number < trial.number:
                self._stops(other, rungs)
        return self._stops(trial, rungs)

    def _stops(self, trial: FrozenTrial, rungs: dict[int, list[float]]) -> bool:
        """Whether a trial stops at its last report; adds its value to every rung it reached."""
        rung = self._first
        for step in sorted(trial.intermediate_values):
            value = trial.intermediate_values[step]
            while step >= rung:
                rungs[rung].append(value)
                best = max(len(rungs[rung]) // self._factor, 1)
                if value > sorted(rungs[rung])[best - 1]:
                    return True
                rung *= self._factor
        return False


def make_sampler(plan: StudyPlan, spec: TrialSpec) -> BaseSampler:
    """A fresh sampler for one trial: its answer depends on the seed, the plan index and the
    finished results, never on what this process did before."""
    if spec.hyperparameters:
        return FixedPointSampler(spec.hyperparameters)
    seed = plan.sampler_seed(spec)
    if plan.resolved.search.sampler == "tpe":
        return TPESampler(seed=seed)
    return RandomSampler(seed=seed)


class OwnRungsPruner(BasePruner):
    """A pruner whose first rung lies beyond the longest warmup of the trial that is asked about:
    before that, learning rates are compared that nobody asked for. As no other size's steps
    enter, a study that gets more sizes prunes as if it had had them from the start.

    Args:
        first_rung: evaluations that no trial is stopped before.
        make: the pruner whose first rung is a step.
    """

    def __init__(self, first_rung: int, make: Callable[[int], BasePruner]) -> None:
        self._first_rung, self._make = first_rung, make

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        steps = trial.user_attrs[SPEC]["evaluation_steps"]
        return self._make(steps[min(self._first_rung, len(steps)) - 1]).prune(study, trial)


def make_pruner(plan: StudyPlan) -> BasePruner:
    """The study's pruner. Its resource is the optimizer step."""
    name = plan.resolved.search.pruner
    if name == "none":
        return NopPruner()
    return OwnRungsPruner(plan.first_rung, _successive_halving if name == "asha" else _median)


def _successive_halving(first_step: int) -> BasePruner:
    return RestartableHalvingPruner(min_resource=first_step, reduction_factor=2)


def _median(first_step: int) -> BasePruner:
    return MedianPruner(n_startup_trials=2, n_warmup_steps=first_step - 1)
