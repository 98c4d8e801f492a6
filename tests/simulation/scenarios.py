"""The worlds whose truth is known: what D(n) is, how noisy, what goes wrong, and what is judged.

D(n), test loss of full less that of LIFT with each arm tuned by the plan's own budget, is made of
power laws and sigmoids of the size, never of the estimator's polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.simulation.landscape import DIFFERENT, RHO, TWINS, Divergence, Noise, Surface

Size = float


@dataclass(frozen=True)
class PlanShape:
    """The study file's part of a scenario; by default what `study init` proposes.

    Attributes:
        study_seeds: how many the studies take in turn. What is random about the plan itself,
            hundreds of search designs, repeats after so many studies; the noise never does.
    """

    sizes: tuple[int, ...] = (250, 500, 1000, 2000, 4000)
    replicates: int = 5
    trials: int = 8
    seeds: int = 2
    sampler: Literal["sobol", "tpe", "random"] = "sobol"
    pruner: Literal["none", "asha", "median"] = "none"
    basis: Literal["device_seconds", "tokens"] = "device_seconds"
    study_seeds: int = 40

    @property
    def middle(self) -> int:
        return self.sizes[len(self.sizes) // 2]

    @property
    def between(self) -> int:
        """A size in the tested range that was not tested: between the middle and the next."""
        above = self.sizes[len(self.sizes) // 2 + 1] if len(self.sizes) > 2 else self.sizes[-1]
        return round(math.sqrt(self.middle * above))

    @property
    def asked(self) -> tuple[int, ...]:
        """All tested sizes and the one between, ascending."""
        return tuple(sorted({*self.sizes, self.between}))


@dataclass(frozen=True, eq=False)
class Scenario:
    """One world; each is equal to itself only.

    Attributes:
        difference: the true D(n) in nats.
        uniform: a study's D(n) is shifted by a number drawn uniformly from +- so many rho.
        unlearned: arms that stay at the base model's loss, whatever is done.
        worse_than_base: arms that end above it.
        lift_cost: device-seconds of a LIFT run over a full one.
        most: studies at most; None: as many as are asked for.
        judge_coverage: False where D(n) bends more than the estimator's curve can, which the
            coverage shown then includes.
    """

    name: str
    difference: Callable[[Size], float]
    noise: Noise = field(default_factory=Noise)
    plan: PlanShape = PlanShape()
    surfaces: Mapping[str, Surface] = field(default_factory=lambda: DIFFERENT)
    divergence: Divergence = field(default_factory=Divergence)
    uniform: float = 0.0
    unlearned: frozenset[str] = frozenset()
    worse_than_base: frozenset[str] = frozenset()
    lift_cost: float = 1.0
    most: int | None = None
    judge_coverage: bool = True

    @property
    def is_exact(self) -> bool:
        """Whether `difference` is the truth, no arm being kept from learning."""
        return not (self.unlearned or self.worse_than_base)


def constant(rhos: float) -> Callable[[Size], float]:
    return lambda size: rhos * RHO


def decay(rhos: float, exponent: float = 0.6) -> Callable[[Size], float]:
    """`rhos` at 250 examples, falling towards 0 as a power of the size."""
    return lambda size: rhos * RHO * (size / 250.0) ** -exponent


def crossing(
    size_at_zero: float, scale: float = 9.6, exponents: tuple[float, float] = (0.35, 0.10)
) -> Callable[[Size], float]:
    """`scale` rho times a difference of two power laws that meet at a size; LIFT is better
    below."""

    def difference(size: Size) -> float:
        ratio = size / size_at_zero
        return scale * RHO * (ratio ** -exponents[0] - ratio ** -exponents[1])

    return difference


def sigmoid(high: float, low: float, middle: float, octaves: float) -> Callable[[Size], float]:
    """From `high` to `low` rho, half way at `middle` examples, over some octaves."""

    def difference(size: Size) -> float:
        share = 1.0 / (1.0 + math.exp(math.log2(size / middle) * 4.0 / octaves))
        return RHO * (low + (high - low) * share)

    return difference


def _all() -> list[Scenario]:
    usual = Scenario("identical arms", constant(0.0))
    cross = Scenario("crossover", crossing(1000.0))
    return [
        usual,
        replace(usual, name="twins, each its own luck", surfaces=TWINS),
        replace(usual, name="D = rho", difference=constant(1.0)),
        replace(usual, name="D = -rho", difference=constant(-1.0)),
        replace(usual, name="D = 2 rho", difference=constant(2.0)),
        replace(usual, name="D = -2 rho", difference=constant(-2.0)),
        replace(usual, name="decay to zero", difference=decay(6.0)),
        cross,
        replace(usual, name="steep crossover", judge_coverage=False,
                difference=crossing(1000.0, 6.4, (0.55, 0.10))),
        replace(usual, name="curved", difference=sigmoid(4.0, -1.0, 700.0, 5.0)),
        replace(cross, name="crossover, 2x noise at the smallest", noise=Noise(smallest=2.0)),
        replace(cross, name="crossover, 4x noise at the smallest", noise=Noise(smallest=4.0)),
        replace(usual, name="D = rho, 4x noise", difference=constant(1.0),
                noise=Noise(smallest=4.0)),
        replace(usual, name="D = rho, split error rho/4", difference=constant(1.0),
                noise=Noise(split=0.25)),
        replace(cross, name="crossover, split error rho/4", noise=Noise(split=0.25)),
        replace(cross, name="crossover, split error rho/2", noise=Noise(split=0.5)),
        replace(cross, name="heavy tails", noise=Noise(outliers="heavy")),
        replace(cross, name="spikes", noise=Noise(outliers="spikes")),
        replace(cross, name="divergence", divergence=Divergence(high=0.6, anywhere=0.002)),
        replace(usual, name="cheaper, not worse", difference=constant(0.0), lift_cost=0.7,
                plan=PlanShape(basis="tokens")),
        replace(usual, name="cheaper, worse by rho", difference=constant(-1.0), lift_cost=0.7,
                plan=PlanShape(basis="tokens")),
        replace(usual, name="LIFT learns nothing", unlearned=frozenset({"lift"})),
        replace(usual, name="LIFT learns nothing, full gets worse", unlearned=frozenset({"lift"}),
                worse_than_base=frozenset({"full"})),
        replace(usual, name="D uniform", difference=decay(2.0), uniform=5.0),
        replace(usual, name="D uniform, 4x noise, split error rho/4", difference=decay(2.0),
                uniform=5.0, noise=Noise(smallest=4.0, split=0.25)),
        replace(cross, name="ASHA", surfaces=TWINS, plan=PlanShape(pruner="asha")),
        replace(usual, name="ASHA, D = 2 rho", difference=constant(2.0), surfaces=TWINS,
                plan=PlanShape(pruner="asha")),
        replace(usual, name="TPE and median pruner, D = 2 rho", difference=constant(2.0),
                surfaces=TWINS, plan=PlanShape(sampler="tpe", pruner="median"), most=400),
    ]  # fmt: skip


SCENARIOS = {scenario.name: scenario for scenario in _all()}
