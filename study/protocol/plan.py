"""Pure `StudyConfig -> StudyPlan`: every cell, replicate, seed, subset and budget.

Nothing here reads a file, a clock or a global random state: the same study file and the same
`ModelFacts` give the same plan, on any machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from study.config.load import StudyConfig
from study.protocol.records import Stage, StepCosts, TrialSpec, WarmStart
from study.protocol.steps import (
    ModelFacts,
    check_structures,
    evaluation_steps,
    full_steps,
    trial_steps,
)
from study.strategies import STRATEGIES

__all__ = [
    "Cell", "ModelFacts", "StudyPlan", "cell_of", "derive_seed", "evaluation_steps", "full_steps",
    "plan_trials", "trial_steps", "with_probe", "with_space",
]  # fmt: skip


class _Stream(IntEnum):
    """Independent random streams of a study; the numbers are part of every plan, so new ones
    are added at the end."""

    SUBSET = 1
    TRIAL = 2
    DESIGN = 3
    ORDER = 4
    SAMPLER = 5


def derive_seed(study_seed: int, *key: int) -> int:
    """A 31-bit seed that depends on `study_seed` and `key` alone (NumPy's SeedSequence)."""
    state = np.random.SeedSequence(study_seed, spawn_key=key).generate_state(1, np.uint32)
    return int(state[0] >> 1)


@dataclass(frozen=True)
class Cell:
    """One arm at one dataset size, in one replicate: what one Optuna study holds."""

    arm: str
    size: int
    replicate: int


@dataclass(frozen=True)
class StudyPlan:
    """Everything a study will run.

    Attributes:
        resolved: the study as it searches, see `with_space`.
        model: see `ModelFacts`.
        search: every search trial, in the order they are handed out. Hyperparameters are
            filled in for the `sobol` sampler and for points of `warm_start`; for others they come
            when a trial starts.
        warm_start: what every replicate's search tries first.
    """

    resolved: StudyConfig
    model: ModelFacts
    search: tuple[TrialSpec, ...]
    warm_start: WarmStart = field(default_factory=WarmStart)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Cells in the order of their first trial."""
        return tuple(dict.fromkeys(cell_of(spec) for spec in self.search))

    def confirm(self, cell: Cell, hyperparameters: Mapping[str, Any]) -> tuple[TrialSpec, ...]:
        """The confirm trials of a replicate whose winner has `hyperparameters`."""
        return tuple(
            _make_spec(self.resolved, self.model, cell, Stage.CONFIRM, index, hyperparameters)
            for index in range(self.resolved.confirm.seeds)
        )

    def resolve(self, spec: TrialSpec, hyperparameters: Mapping[str, Any]) -> TrialSpec:
        """`spec` with its hyperparameters and the number of steps that follows from them."""
        return _make_spec(
            self.resolved, self.model, cell_of(spec), spec.stage, spec.index, hyperparameters
        )

    def sampler_seed(self, spec: TrialSpec) -> int:
        """Seed for a sampler that is asked for this one trial. A function of the plan index,
        so that a killed and continued study asks the same questions."""
        return derive_seed(
            self.resolved.seed,
            _Stream.SAMPLER,
            _arm_number(spec.arm),
            spec.size,
            spec.replicate,
            spec.index,
        )

    @property
    def first_rung(self) -> int:
        """Evaluations that every search trial completes before a pruner may stop it: those
        inside the longest warmup, and one more."""
        warmup = self.resolved.space().upper_bound("warmup_ratio")
        return min(
            math.floor(warmup * self.resolved.training.evaluations) + 1,
            self.resolved.training.evaluations,
        )

    @property
    def trials(self) -> int:
        """Search and confirm trials in all."""
        return len(self.search) + len(self.cells) * self.resolved.confirm.seeds


def cell_of(spec: TrialSpec) -> Cell:
    return Cell(spec.arm, spec.size, spec.replicate)


def plan_trials(
    config: StudyConfig, model: ModelFacts, warm_start: WarmStart | None = None
) -> StudyPlan:
    """Lay out the study.

    Trials are ordered replicate by replicate, so that an interrupted study has whole replicates,
    and within a replicate by size and index with all arms side by side.

    Raises:
        UserError: a structure, an arm's or one to be searched, does not fit the model.
    """
    check_structures(config, model)
    specs: list[TrialSpec] = []
    first = warm_start or WarmStart()
    config = with_space(config, first)
    for replicate in range(config.search.replicates):
        for size in config.dataset_sizes:
            designs = {
                arm: _design(config, arm, size, replicate, first.points.get(arm, ()))
                for arm in config.arms.names
            }
            for index in range(config.search.trials):
                for arm in config.arms.names:
                    cell = Cell(arm, size, replicate)
                    specs.append(
                        _make_spec(config, model, cell, Stage.SEARCH, index, designs[arm][index])
                    )
    return StudyPlan(config, model, tuple(specs), first)


def with_space(config: StudyConfig, warm_start: WarmStart | None) -> StudyConfig:
    """The study as it searches: with the ranges that earlier winners moved."""
    if warm_start is None or warm_start.space is None:
        return config
    changed = {"space": warm_start.space, "overrides": {}}
    return config.model_copy(update={"search": config.search.model_copy(update=changed)})


def _make_spec(
    config: StudyConfig,
    model: ModelFacts,
    cell: Cell,
    stage: Stage,
    index: int,
    hyperparameters: Mapping[str, Any],
) -> TrialSpec:
    place = (cell.size, cell.replicate)
    subset_seed = derive_seed(config.seed, _Stream.SUBSET, *place)
    confirming = stage is Stage.CONFIRM
    seed = derive_seed(
        config.seed, _Stream.TRIAL, _arm_number(cell.arm), *place, int(confirming), index
    )
    steps = trial_steps(config, model, cell.arm, cell.size, hyperparameters, seed)
    letter = "c" if confirming else "s"
    return TrialSpec(
        trial_id=f"{cell.arm}-n{cell.size}-r{cell.replicate}-{letter}{index}",
        arm=cell.arm,
        size=cell.size,
        replicate=cell.replicate,
        stage=stage,
        index=index,
        seed=seed,
        subset_seed=subset_seed,
        order_seed=(
            derive_seed(config.seed, _Stream.ORDER, *place, index) if confirming else subset_seed
        ),
        steps=steps,
        evaluation_steps=evaluation_steps(steps, config.training.evaluations),
        hyperparameters=dict(hyperparameters),
    )


def _arm_number(arm: str) -> int:
    """A number for an arm's name that no other arm's presence changes."""
    return int.from_bytes(arm.encode(), "big") % (1 << 31)


def _design(
    config: StudyConfig,
    arm: str,
    size: int,
    replicate: int,
    first: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The cell's search design: scrambled Sobol points, equal in all arms for what they share.

    Those of `first` stand before them; what a point lacks is taken from the design.

    One design covers the union of all arms' parameters, and each arm reads its own columns:
    scrambling two designs of different dimension with one seed would not give equal columns.
    """
    trials = config.search.trials
    sampled = config.search.sampler != "sobol"
    if sampled and not first:
        return [{} for _ in range(trials)]
    space = config.space()
    columns = list(dict.fromkeys(name for a in STRATEGIES for name in space.for_arm(a)))
    from scipy.stats import qmc  # half a second, so only when a plan is made

    rng = np.random.default_rng(derive_seed(config.seed, _Stream.DESIGN, size, replicate))
    sobol = qmc.Sobol(d=len(columns), scramble=True, rng=rng)
    points = sobol.random_base2(m=max(0, math.ceil(math.log2(trials))))[:trials]
    drawn = [
        {
            name: domain.from_unit(float(row[columns.index(name)]))
            for name, domain in space.for_arm(arm).items()
        }
        for row in points
    ]
    known = [{**point, **given} for point, given in zip(drawn, first, strict=False)]
    rest = [{} for _ in drawn] if sampled else drawn
    return known + rest[: trials - len(known)]


def with_probe(plan: StudyPlan, probe: StepCosts | None) -> StudyPlan:
    """The same study planned again with what the probe measured."""
    facts = dataclasses.replace(plan.model, probe=probe)
    return plan_trials(plan.resolved, facts, plan.warm_start)
