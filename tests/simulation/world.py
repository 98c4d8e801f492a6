"""One simulated study's world: how each trial of a real plan goes.

What is random about a study is drawn before its first trial and belongs to a trial's place in the
plan, so that the order in which trials run, and who runs them, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.protocol.plan import cell_of
from study.protocol.records import BaseModelRecord, Measurement, TrialOutcome, TrialSpec
from tests.simulation.landscape import BASE_LOSS, BASE_RETENTION, RHO, Floats, Point, as_point
from tests.simulation.plans import LaidOut
from tests.simulation.records import make_measurements, make_outcome, seconds_of
from tests.simulation.scenarios import Scenario
from tests.simulation.truth import SHIFT_SD, lowest_losses

EXAMPLES = 120
"""Test examples."""


@dataclass(frozen=True, eq=False)
class TestSplit:
    """The examples that this study's test split happens to hold.

    Attributes:
        targets: (examples,) of each.
        losses: (examples,) the base model's, less its mean over all text.
        leanings: (2, examples) nats by which full does worse than LIFT on an example, beyond D:
            once for small, once for large dataset sizes.
    """

    __test__ = False
    targets: np.ndarray
    losses: Floats
    leanings: Floats

    def leaning(self, octaves: float) -> Floats:
        """(examples,) at a size so many octaves from the smallest; equally strong at all sizes,
        and less alike the further these are apart."""
        angle = 0.2 * octaves
        return math.cos(angle) * self.leanings[0] + math.sin(angle) * self.leanings[1]


class World:
    """One study's truth and luck: says how each of its trials goes.

    Attributes:
        difference: D(n) of this study at the sizes asked, nats.
    """

    def __init__(self, scenario: Scenario, laid_out: LaidOut, seed: Sequence[int]) -> None:
        self.scenario, self.laid_out = scenario, laid_out
        random = np.random.default_rng(seed)
        noise, plan = scenario.noise, laid_out.plan
        cells, trials = len(laid_out.cells), plan.resolved.search.trials
        seeds = plan.resolved.confirm.seeds
        self.shift = RHO * scenario.uniform * float(random.uniform(-1.0, 1.0))
        smallest = plan.resolved.dataset_sizes[0]
        self._scale = np.array([noise.scale(c.size, smallest) for c in laid_out.cells])
        scale = self._scale[:, None]
        subset, rate_shift = self._subset_effects(random)
        level = np.array([self._lowest(c.arm, c.size) for c in laid_out.cells]) + subset
        search = noise.seeds(random, (cells, trials)) * scale
        search += random.normal(0.0, noise.validation * RHO, (cells, trials))
        # Lists: trials are looked up one by one.
        self._level, self._rate_shift = level.tolist(), rate_shift.tolist()
        self._search_noise = search.tolist()
        self._confirm_noise = (noise.seeds(random, (cells, seeds)) * scale).tolist()
        self._confirm_error = random.normal(0.0, noise.validation * RHO, (cells, seeds)).tolist()
        self._search_risk = random.random((cells, trials)).tolist()
        self._confirm_risk = random.random((cells, seeds)).tolist()
        self._search_luck = random.standard_normal((cells, trials)).tolist()
        self._confirm_luck = random.standard_normal((cells, seeds)).tolist()
        self._retention = random.normal(0.0, 0.5 * RHO, (cells, seeds)).tolist()
        evaluations = plan.resolved.training.evaluations
        self._rungs = random.normal(0.0, 0.5 * RHO, (cells, trials, evaluations)).tolist()
        self.split = _test_split(random, noise.split * RHO)
        self._run_examples = random.normal(0.0, 0.005, (cells, seeds, EXAMPLES))
        self._shares = self.split.targets / self.split.targets.sum()
        self._examples = [
            self.split.losses
            + (0.5 if c.arm == "full" else -0.5) * self.split.leaning(math.log2(c.size / smallest))
            for c in laid_out.cells
        ]
        self._place = {cell: k for k, cell in enumerate(laid_out.cells)}

    def difference(self, size: float) -> float:
        """The true D at a size, nats."""
        return self.scenario.difference(size) + self.shift

    def _lowest(self, arm: str, size: int) -> float:
        found = lowest_losses(self.scenario, size)[arm]
        return found - self.shift if arm == "lift" else found

    def _subset_effects(self, random: np.random.Generator) -> tuple[Floats, Floats]:
        """(cells,) nats, and shifts of the best log learning rate. Cells whose trials train on one
        subset, by the plan's own seeds, share the one part, and those of one arm the other."""
        _, subset = np.unique(self.laid_out.subset_seeds, return_inverse=True)
        count, noise = int(subset.max()) + 1, self.scenario.noise
        arm = np.array([cell.arm == "lift" for cell in self.laid_out.cells], dtype=int)
        shared = random.normal(0.0, noise.shared_subset * RHO, count)[subset]
        own = random.normal(0.0, noise.subset * RHO, (2, count))[arm, subset]
        shift = random.normal(0.0, SHIFT_SD, (2, count))[arm, subset]
        return self._scale * (shared + own), shift

    def _run_loss(self, spec: TrialSpec, cell: int, point: Point, noise: float) -> float:
        surface = self.scenario.surfaces[spec.arm]
        return self._level[cell] + surface.excess(spec.size, point, self._rate_shift[cell]) + noise

    def search_trial(self, spec: TrialSpec) -> tuple[tuple[Measurement, ...], TrialOutcome]:
        """How a search trial goes if nobody stops it."""
        cell, index = self._place_of(spec)
        point = as_point(spec.hyperparameters)
        risk = self.scenario.divergence.probability(point[0])
        seconds = seconds_of(spec, self.scenario.lift_cost, self._search_luck[cell][index])
        score = self._run_loss(spec, cell, point, self._search_noise[cell][index])
        speed = self.scenario.surfaces[spec.arm].speed
        found = make_measurements(spec, score, speed, self._rungs[cell][index], seconds)
        if self._search_risk[cell][index] < risk:
            return found[:1], make_outcome(spec, None, seconds)
        return found, make_outcome(spec, score, seconds)

    def confirm_trial(self, spec: TrialSpec) -> tuple[tuple[Measurement, ...], TrialOutcome]:
        """How a winner's confirm run goes, test split and retention text included."""
        cell, index = self._place_of(spec)
        point = as_point(spec.hyperparameters)
        risk = self.scenario.divergence.probability(point[0])
        seconds = seconds_of(spec, self.scenario.lift_cost, self._confirm_luck[cell][index])
        true = self._run_loss(spec, cell, point, self._confirm_noise[cell][index])
        score = true + self._confirm_error[cell][index]
        speed = self.scenario.surfaces[spec.arm].speed
        found = make_measurements(spec, score, speed, None, seconds)
        if self._confirm_risk[cell][index] < risk:
            return found[:1], make_outcome(spec, None, seconds)
        losses = true + self._examples[cell] + self._run_examples[cell, index]
        forgets = 0.30 if spec.arm == "full" else 0.12
        retention = BASE_RETENTION + forgets * (BASE_LOSS - true) + self._retention[cell][index]
        return found, make_outcome(
            spec,
            score,
            seconds,
            test_loss=float(losses @ self._shares),
            test_losses=losses.tolist(),
            retention_loss=retention,
        )

    def base(self) -> BaseModelRecord:
        losses = BASE_LOSS + self.split.losses
        targets = self.split.targets
        return BaseModelRecord(
            validation_loss=BASE_LOSS,
            test_loss=float(losses @ targets / targets.sum()),
            retention_loss=BASE_RETENTION,
            test_losses=losses.tolist(),
            test_targets=targets.tolist(),
        )

    def _place_of(self, spec: TrialSpec) -> tuple[int, int]:
        return self._place[cell_of(spec)], spec.index


def _test_split(random: np.random.Generator, error: float) -> TestSplit:
    """`error`: standard error of the arms' difference on it, nats."""
    targets = np.maximum(4, np.round(np.exp(random.normal(3.5, 0.5, EXAMPLES)))).astype(int)
    effective = float(targets.sum() ** 2 / (targets**2).sum())
    losses = random.normal(0.0, 0.6, EXAMPLES)
    leanings = random.standard_normal((2, EXAMPLES)) * error * math.sqrt(effective)
    return TestSplit(targets, losses, leanings)
