"""Real plans of simulated studies, made once per shape and study seed and laid out as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from study.config.space.read import load_space
from study.protocol.plan import Cell, ModelFacts, StudyPlan, cell_of, plan_trials
from study.protocol.records import TrialRecord, TrialSpec
from tests.helpers.costs import step_costs
from tests.helpers.results import make_config
from tests.simulation.landscape import RHO, Floats, as_point
from tests.simulation.scenarios import PlanShape

BLOCKS = 8
MODEL = ModelFacts(BLOCKS, step_costs(0.161, 0.1, 0.09, 0.4, 0.4, 0.3))


@dataclass(eq=False)
class LaidOut:
    """A plan with its search trials by cell.

    Attributes:
        cells: in plan order.
        search: per cell, its search trials by index.
        points: (3, cells, trials) hyperparameters as the landscape reads them; empty where the
            sampler has not spoken.
        subset_seeds: (cells,) what the simulated effect of the training subset hangs on.
    """

    plan: StudyPlan
    cells: tuple[Cell, ...]
    search: tuple[tuple[TrialSpec, ...], ...]
    points: Floats
    subset_seeds: NDArray[np.int64]
    _confirm: dict[tuple[int, int], tuple[TrialSpec, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: StudyPlan) -> LaidOut:
        by_cell: dict[Cell, list[TrialSpec]] = {cell: [] for cell in plan.cells}
        for spec in plan.search:
            by_cell[cell_of(spec)].append(spec)
        search = tuple(tuple(by_cell[cell]) for cell in plan.cells)
        points = [
            [as_point(spec.hyperparameters) for spec in specs if spec.hyperparameters]
            for specs in search
        ]
        seeds = np.array([specs[0].subset_seed for specs in search])
        return cls(plan, plan.cells, search, np.moveaxis(np.array(points), -1, 0), seeds)

    def confirm(self, cell_index: int, winner: TrialRecord) -> tuple[TrialSpec, ...]:
        """What `StudyPlan.confirm` answers, asked once for each possible winner."""
        key = (cell_index, winner.spec.index)
        if key not in self._confirm:
            chosen = winner.spec.hyperparameters
            self._confirm[key] = self.plan.confirm(self.cells[cell_index], chosen)
        return self._confirm[key]


@cache
def plans(shape: PlanShape) -> tuple[LaidOut, ...]:
    """Plans that differ in the study seed alone."""
    return tuple(LaidOut.of(_plan(shape, seed)) for seed in range(shape.study_seeds))


def _plan(shape: PlanShape, seed: int) -> StudyPlan:
    config = make_config(
        name="simulated",
        seed=seed,
        sizes=shape.sizes,
        comparison=shape.basis,
        search={
            "space": _default_space(),
            "trials": shape.trials,
            "replicates": shape.replicates,
            "sampler": shape.sampler,
            "pruner": shape.pruner,
        },
        confirm={"seeds": shape.seeds},
        decision={"rho": RHO},
    )
    return plan_trials(config, MODEL)


@cache
def _default_space() -> dict[str, object]:
    return load_space("default").to_dict()
