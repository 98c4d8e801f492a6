"""Which search trials come next, and what was chosen: steps S1 to S5 of one arm's search.

A step's points are a function of the study's seed and of the finished trials of earlier steps, in
whatever order these finished, so that a killed study goes on with the points it would have had.
Nothing of it depends on the arm, but for its space: both arms have the same number of trials, the
same subsets and, for the parameters that they share, the same first points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from study.protocol.search.choice import (
    Bracket,
    best_rate,
    best_values,
    bracket_of,
    regret_of,
    rise_from,
    spread_units,
)
from study.protocol.search.effort import Effort, Step, ladder_of, steps_of
from study.protocol.search.parameters import RATE, Scalar, Space
from study.protocol.search.records import Chosen, Finished, NextTrials, Planned
from study.protocol.search.surface import Surface

_SPREAD = ((0.1, 0.5), (0.9, 0.5), (0.5, 0.1), (0.5, 0.9), (0.85, 0.85), (0.15, 0.15))
_DESIGN, _RUN, _DRAW = 101, 102, 103
"""Random streams; apart from those of the plan."""


def next_trials(
    seed: int,
    asked: int,
    space: Space,
    finished: Iterable[Finished],
    rho: float,
    effort: Effort | None = None,
) -> NextTrials | Chosen:
    """The trials of the first step that has not ended, or the choice.

    Args:
        seed: the study's.
        asked: dataset size that the verdict is about.
        finished: of this arm, in any order.
        rho: the difference that matters, nats.
        effort: how much to search; equal in both arms.
    """
    search = _Search(seed, asked, space, rho, effort or Effort(), finished)
    return search.next()


class _Search:
    def __init__(
        self,
        seed: int,
        asked: int,
        space: Space,
        rho: float,
        effort: Effort,
        finished: Iterable[Finished],
    ) -> None:
        self._seed, self._asked, self._space, self._rho = seed, asked, space, rho
        self._effort = effort
        self._steps = steps_of(asked, effort) if space.rate.searched or space.others else ()
        if not space.rate.searched:
            self._steps = tuple(step for step in self._steps if step.kind in ("first", "spread"))
        self._names = [name for step in self._steps for name in (step.name, step.name + "r")]
        known = [one for one in finished if one.planned.step in self._names]
        self._finished = sorted(known, key=lambda f: (self._place(f.planned.step), f.planned.index))

    def next(self) -> NextTrials | Chosen:
        for step in self._steps:
            before = [f for f in self._finished if self._before(f, step.name)]
            mine = {f.planned.index: f for f in self._finished if f.planned.step == step.name}
            if step.kind == "beyond" and not mine:
                points = self._beyond(before)
                if not points:
                    break
            elif len(mine) == self._count(step):
                points = ()
            else:
                points = self._points(step, before)
            waiting = self._planned(step, step.name, points, mine)
            if waiting:
                return NextTrials(step.name, waiting)
            if step.repeats and (again := self._again(step, mine)):
                return NextTrials(step.name + "r", again)
        return self._choice()

    def _again(self, step: Step, mine: Mapping[int, Finished]) -> tuple[Planned, ...]:
        """Those that diverged, once more with a fresh seed."""
        name = step.name + "r"
        done = {f.planned.index: f for f in self._finished if f.planned.step == name}
        diverged = {i: f.planned.values for i, f in mine.items() if f.trial.diverged}
        return tuple(
            self._plan(step, name, index, values)
            for index, values in sorted(diverged.items())
            if index not in done
        )

    def _points(self, step: Step, before: Sequence[Finished]) -> Sequence[Mapping[str, Scalar]]:
        if step.kind == "first":
            return self._first_points()
        if step.kind == "spread":
            return self._spread_points(before)
        values = self._kept_values(before)
        surface = self._surface(before)
        if surface is None:
            return self._below_all(values, before)
        low, high = self._tried(before)
        middle = best_rate(surface, step.size, values, low, high)
        rise = rise_from(surface, step.size, middle, values)
        ends = (middle - rise.left, min(middle + rise.right, max(surface.highest, middle)))
        return [self._space.with_rate(end, values) for end in ends]

    def _first_points(self) -> list[dict[str, Scalar]]:
        space = self._space
        columns = sum(p.searched for p in space.parameters)
        units = spread_units(columns, sum(self._effort.first), self._derive(_DESIGN))
        return [space.point([float(u) for u in row]) for row in units]

    def _spread_points(self, before: Sequence[Finished]) -> list[dict[str, Scalar]]:
        others, count = self._space.others, self._effort.spread
        if len(others) <= 2 and count <= len(_SPREAD):
            units = np.array(_SPREAD)[:count, : len(others)]
        else:
            units = 0.05 + 0.9 * spread_units(len(others), count, self._derive(_DESIGN, 1))
        surface = self._surface(before)
        if surface is None:
            rate = self._below_all({}, before)[0]
        else:
            low, high = self._tried(before)
            size = ladder_of(self._asked)[0]
            best = best_rate(surface, size, best_values(surface), low, high)
            rate = self._space.with_rate(best, {})
        fixed = self._space.fixed
        return [
            {**fixed, **{p.name: p.at(float(u)) for p, u in zip(others, row, strict=True)}, **rate}
            for row in units
        ]

    def _beyond(self, before: Sequence[Finished]) -> Sequence[Mapping[str, Scalar]]:
        """One rate beyond the bracket's edge, where the best one lies there."""
        values = self._kept_values(before)
        surface = self._surface(before)
        if surface is None:
            return self._below_all(values, before)[:1]
        bracket = bracket_of(surface)
        best = best_rate(surface, self._asked, values, bracket.low, bracket.high)
        edge = bracket.edge(best)
        if not edge:
            return ()
        rise = rise_from(surface, self._asked, best, values)
        beyond = bracket.low - rise.left if edge < 0 else bracket.high + rise.right
        return [self._space.with_rate(min(beyond, surface.highest), values)]

    def _choice(self) -> Chosen:
        space, asked = self._space, self._asked
        values = self._kept_values(self._finished)
        surface = self._surface(self._finished)
        if surface is None or not space.rate.searched:
            values = {**space.fixed, **values}
            rate = float(values[RATE])
            found = surface is not None or not self._steps
            nothing = 0.0 if found else float("inf")
            noise = surface.noise if surface else 0.0
            return Chosen(values, (rate, rate), found, False, nothing, 0.0, noise, {asked: rate})
        bracket = bracket_of(surface)
        best = best_rate(surface, asked, values, bracket.low, bracket.high)
        chosen = space.with_rate(best, values)
        low, high = space.log_range
        place = (best - low) / (high - low)
        return Chosen(
            values=chosen,
            tried=(space.rate_near(bracket.low), space.rate_near(bracket.high)),
            inside=bracket.edge(best) == 0,
            outer_tenth=not 0.1 <= place <= 0.9,
            regret=regret_of(surface, best, values, bracket, self._derive(_DRAW)),
            curvature=rise_from(surface, asked, best, values).curvature,
            noise=surface.noise,
            sizes=self._rates_by_size(surface, values, bracket, best),
        )

    def _rates_by_size(
        self, surface: Surface, values: Mapping[str, Any], bracket: Bracket, best: float
    ) -> dict[int, float]:
        """Within the rates tried at a size or at the asked one."""
        found = {}
        for size in sorted({trial.size for trial in surface.trials} - {self._asked}):
            tried = [r for t, r in zip(surface.trials, surface.log_rates, strict=True)
                     if t.size == size and not t.diverged]  # fmt: skip
            low, high = min([*tried, bracket.low]), max([*tried, bracket.high])
            found[size] = self._space.rate_near(best_rate(surface, size, values, low, high))
        return {**found, self._asked: self._space.rate_near(best)}

    def _kept_values(self, before: Sequence[Finished]) -> dict[str, Scalar]:
        """Of the other parameters: chosen once, after the spread, so that every bracket is about
        the learning rate alone."""
        kept = [f for f in before if self._kind(f.planned.step) in ("bracket", "beyond")]
        if kept:
            return dict(kept[0].planned.values)
        surface = self._surface(before)
        if surface is not None:
            return best_values(surface)
        units = [0.5] * sum(p.searched for p in self._space.parameters)
        return self._space.point(units)

    def _below_all(
        self, values: Mapping[str, Scalar], before: Sequence[Finished]
    ) -> list[dict[str, Scalar]]:
        """Where everything diverged: lower rates, in two steps."""
        lowest = self._tried(before)[0]
        return [self._space.with_rate(lowest - away, values) for away in (1.0, 0.5)]

    def _surface(self, before: Sequence[Finished]) -> Surface | None:
        """None where every trial diverged."""
        trials = [f.trial for f in before]
        if all(trial.diverged for trial in trials):
            return None
        return Surface(self._space, self._asked, trials, self._rho)

    def _tried(self, before: Sequence[Finished]) -> tuple[float, float]:
        rates = [np.log(float(f.planned.values[RATE])) for f in before]
        return float(min(rates)), float(max(rates))

    def _planned(
        self,
        step: Step,
        name: str,
        points: Sequence[Mapping[str, Scalar]],
        done: Mapping[int, Finished],
    ) -> tuple[Planned, ...]:
        return tuple(
            self._plan(step, name, index, values)
            for index, values in enumerate(points)
            if index not in done
        )

    def _plan(self, step: Step, name: str, index: int, values: Mapping[str, Scalar]) -> Planned:
        size = step.sizes[index] if len(step.sizes) > 1 else step.size
        seed = self._derive(_RUN, size, step.subset, self._place(name), index)
        return Planned(name, index, size, dict(values), step.subset, seed)

    def _derive(self, *key: int) -> int:
        state = np.random.SeedSequence(self._seed, spawn_key=key).generate_state(1, np.uint32)
        return int(state[0] >> 1)

    def _count(self, step: Step) -> int:
        return len(step.sizes)

    def _place(self, name: str) -> int:
        return self._names.index(name)

    def _before(self, one: Finished, name: str) -> bool:
        return self._place(one.planned.step) < self._place(name)

    def _kind(self, name: str) -> str:
        return next(step.kind for step in self._steps if name in (step.name, step.name + "r"))
