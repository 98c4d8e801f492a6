"""Worlds for the surface's search and the paired rounds: what a run's loss is, and what was missed.

All in rho. A world has one valley per arm: how far a run is above the arm's lowest loss at a size,
over the log learning rate; shapes are never the surface's polynomial throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from study.protocol.search.effort import Effort
from study.protocol.search.gates import Grade, difficulty_gate
from study.protocol.search.parameters import Parameter, Space
from study.protocol.search.records import Chosen, Finished, NextTrials, Planned
from study.protocol.search.steps import next_trials

RHO = 0.01
ASKED = 4000
LOW, HIGH = 1e-5, 1e-4
SPACE = Space(
    (
        Parameter("learning_rate", "float", LOW, HIGH, log=True),
        Parameter("warmup_ratio", "float", 0.0, 0.1),
        Parameter("max_grad_norm", "float", 0.3, 3.0, log=True),
    )
)
_MIDDLE = (math.log(LOW) + math.log(HIGH)) / 2


@dataclass(frozen=True)
class Valley:
    """One arm's excess over its lowest loss.

    Attributes:
        curvature: rho per squared e-fold.
        best: log of the best rate at the asked size, from the middle of the range.
        drift: of it per octave.
        jump: by which it moves between half of the asked size and the asked one.
        shape: ``bowl``; ``cliff``: steep above the best rate, and runs diverge further up;
            ``plateau``: flat for 0.35 e-folds to both sides.
        other: rho that a warmup half of its range from the best one costs; half of it for clipping.
    """

    curvature: float = 20.0
    best: float = 0.0
    drift: float = -0.06
    jump: float = 0.0
    shape: Literal["bowl", "cliff", "plateau"] = "bowl"
    other: float = 0.3

    def excess(
        self,
        size: float,
        values: Mapping[str, float],
        shift: float = 0.0,
        best: tuple[float, float] = (0.2, 0.0),
    ) -> float:
        """Rho above the lowest of this size.

        Args:
            shift: of the best log rate, this study's.
            best: warmup and log clipping, both in [-1, 1].
        """
        away = math.log(values["learning_rate"]) - self.center(size, shift)
        if self.shape == "plateau":
            away = math.copysign(max(abs(away) - 0.35, 0.0), away)
        rise = self.curvature * away**2
        if self.shape == "cliff" and away > 0.12:
            rise += 12 * self.curvature * (away - 0.12) ** 2
        warmup = values["warmup_ratio"] / 0.05 - 1.0 - best[0]
        clipping = math.log(values["max_grad_norm"] / 0.95) / 1.15 - best[1]
        return rise + self.other * (warmup**2 + clipping**2 / 2)

    def center(self, size: float, shift: float) -> float:
        """Log learning rate of the lowest loss."""
        octaves = math.log2(size / ASKED)
        jumped = self.jump if octaves > -0.5 else 0.0
        return _MIDDLE + self.best + shift + self.drift * octaves + jumped

    def lowest(self, shift: float) -> float:
        """Excess of the best configuration that the space allows at the asked size."""
        inside = min(max(self.center(ASKED, shift), math.log(LOW)), math.log(HIGH))
        values = {"learning_rate": math.exp(inside), "warmup_ratio": 0.05, "max_grad_norm": 0.95}
        return self.excess(ASKED, values, shift, (0.0, 0.0))


@dataclass(frozen=True)
class TunedWorld:
    """Where studies are drawn from. Standard deviations in rho.

    Attributes:
        pair_sd: of a round's difference.
        split: standard error of a difference that is due to the test split.
        smallest: how many times larger a run's noise is at the smallest size.
        diverging: share of runs that diverge at any rate.
        heavy: run noise is Student's with 3 degrees of freedom.
        equal: both arms are equally hard to tune.
    """

    name: str
    full: Valley = Valley()
    lift: Valley = Valley(curvature=14.0, best=0.2, drift=-0.03)
    pair_sd: float = 1.0
    split: float = 0.125
    smallest: float = 1.0
    diverging: float = 0.0
    heavy: bool = False
    equal: bool = True

    def noise(self, random: np.random.Generator, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Of unit variance."""
        if self.heavy:
            return np.asarray(random.standard_t(3, shape) / math.sqrt(3))
        return np.asarray(random.standard_normal(shape))


WORLDS = {
    world.name: world
    for world in (
        TunedWorld("usual"),
        TunedWorld("quiet", pair_sd=0.5, split=0.25),
        TunedWorld("noisy", pair_sd=2.0),
        TunedWorld(
            "unequal", Valley(curvature=60.0, drift=-0.12), Valley(curvature=6.0), equal=False
        ),
        TunedWorld("cliff", Valley(10.0, shape="cliff"), equal=False),
        TunedWorld(
            "plateau",
            Valley(25.0, shape="plateau"),
            Valley(15.0, best=0.2, shape="plateau"),
            heavy=True,
        ),
        TunedWorld("jump", Valley(jump=0.5), equal=False),
        TunedWorld("outside", Valley(best=-1.35), Valley(14.0, best=-1.3, drift=-0.03)),
        TunedWorld("small sizes", smallest=4.0, diverging=0.02),
        TunedWorld("split", split=0.25),
    )
}


@dataclass(frozen=True)
class Tuned:
    """A study after its search.

    Attributes:
        missed_full, missed_lift: rho by which the choices are worse than the best ones.
        runs: search trials of both arms.
        cost: of them, eq.
    """

    full: Chosen
    lift: Chosen
    missed_full: float
    missed_lift: float
    runs: int
    cost: float

    @property
    def offset(self) -> float:
        """Rho, D at the chosen configurations less D at the best ones."""
        return self.missed_full - self.missed_lift

    @property
    def harder(self) -> bool:
        """Whether the difficulty gate warns."""
        return difficulty_gate(self.full, self.lift) is Grade.WARN


Search = Callable[[int, list[Finished], Effort], NextTrials | Chosen]


def usual_search(seed: int, finished: list[Finished], effort: Effort) -> NextTrials | Chosen:
    return next_trials(seed, ASKED, SPACE, finished, RHO, effort)


def tune(
    world: TunedWorld,
    seed: int,
    search: Search = usual_search,
    efforts: tuple[Effort, Effort] = (Effort(), Effort()),
) -> Tuned:
    """One study's search, both arms."""
    luck = _Luck(world, seed)
    chosen, missed, runs, cost = [], [], 0, 0.0
    for number, (valley, effort) in enumerate(zip((world.full, world.lift), efforts, strict=True)):
        shift = luck.shifts[number]
        finished: list[Finished] = []
        while isinstance(step := search(seed, finished, effort), NextTrials):
            finished += [
                Finished(planned, luck.loss(valley, number, planned)) for planned in step.trials
            ]
        chosen.append(step)
        values = {key: float(value) for key, value in step.values.items()}
        excess = valley.excess(ASKED, values, shift, luck.best[number])
        missed.append(excess - valley.lowest(shift))
        runs += len(finished)
        cost += sum(f.planned.size for f in finished) / ASKED
    return Tuned(chosen[0], chosen[1], missed[0], missed[1], runs, cost)


class _Luck:
    """One study's: what a run's loss is depends on its place alone, not on when it runs."""

    def __init__(self, world: TunedWorld, seed: int) -> None:
        self._world, self._seed = world, seed
        random = np.random.default_rng([seed, 1])
        together, *own = (float(value) for value in random.standard_normal(3))
        self.shifts = [0.15 * together + 0.1 * value for value in own]
        warmup, clipping = (float(value) for value in random.uniform(-0.6, 0.6, 2))
        moved = random.uniform(-0.2, 0.2, (2, 2))
        self.best = [(warmup + float(w), clipping + float(c)) for w, c in moved]

    def loss(self, valley: Valley, arm: int, planned: Planned) -> float | None:
        """Of a search trial, nats; None: it diverged."""
        world, size = self._world, planned.size
        steps = math.log2(ASKED / size)
        scale = world.pair_sd * world.smallest ** min(max((steps - 1) / 3, 0.0), 1.0)
        place = [self._seed, size, planned.subset]
        shared = float(np.random.default_rng([*place, 7]).standard_normal())
        subset = float(world.noise(np.random.default_rng([*place, arm, 8])))
        random = np.random.default_rng([*place, arm, planned.seed])
        run, validation, chance = world.noise(random), world.noise(random), random.random()
        excess = valley.excess(size, _floats(planned), self.shifts[arm], self.best[arm])
        above = float(planned.values["learning_rate"]) > math.exp(
            valley.center(size, self.shifts[arm])
        )
        steep = valley.shape == "cliff" and above and excess > 12.0
        if chance < world.diverging + 0.9 * steep:
            return None
        noise = scale * (shared + 0.5 * subset + 0.5 * float(run) + 0.25 * float(validation))
        return 2.0 + RHO * (30 * math.log2(ASKED / size) ** 0.7 + excess + noise)


def _floats(planned: Planned) -> dict[str, float]:
    return {key: float(value) for key, value in planned.values.items()}


def with_noise(world: TunedWorld, pair_sd: float, split: float) -> TunedWorld:
    """The same valleys."""
    name = f"{world.name}, pair sd {pair_sd}, split {split}"
    return replace(world, name=name, pair_sd=pair_sd, split=split)
