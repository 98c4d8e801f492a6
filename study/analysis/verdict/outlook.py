"""What a larger study would know at one dataset size, by what is known there now."""

from __future__ import annotations

import math
from collections.abc import Sequence

from study.analysis.cells.base import CellSummary, mean
from study.analysis.curve.design import precision_at, replicated
from study.analysis.curve.fit import Curve
from study.analysis.curve.noise import SplitNoise, noise_on_record
from study.analysis.rules import CHEAPER, SPLIT_LIMIT, SURE, Pair, pairs_of
from study.analysis.verdict.growth import Growth, planned_runs
from study.analysis.verdict.records import NextRuns
from study.config.load import StudyConfig
from study.protocol.steps import full_steps

_EXAMPLES = 1000


class Outlook:
    """Of a study and one dataset size.

    Args:
        config: the study file that its runs on record belong to.
        curve: of its confirm runs; None: too few.
        cells: of both arms.
        size: training examples.
        pair: what is compared; None: the study's first two arms.
    """

    def __init__(
        self,
        config: StudyConfig,
        curve: Curve | None,
        cells: Sequence[CellSummary],
        size: int,
        pair: Pair | None = None,
    ) -> None:
        self._pair = pair or pairs_of(config.arms.names)[0]
        self.config, self._cells, self._size = config, tuple(cells), size
        self._rho = config.decision.rho
        self._noise = noise_on_record(config.search.trials, curve)
        # Without a curve the test split is taken to be large enough.
        self._split = SplitNoise(_EXAMPLES, SPLIT_LIMIT * self._rho, "assumed")
        self._points: tuple[float, ...] = ()
        self._difference: float | None = None
        self._half_width: float | None = None
        self._predicted: float | None = None
        self._local = 1.0
        if curve is not None:
            self._read(curve)

    def _read(self, curve: Curve) -> None:
        found = curve.at(self._size)
        self._points = tuple(curve.paired.sizes.tolist())
        self._difference = float(found.difference[0])
        self._half_width = float(found.high[0] - found.low[0]) / 2
        error = float(curve.test_error(self._size)[0])
        self._split = SplitNoise(curve.paired.test_examples, error, "runs")
        now = precision_at(self._points, self._size)
        if now is None:
            return
        # The noise differs between sizes: what was found here corrects the pooled one.
        scatter = float(found.error[0]) ** 2 - self._split.variance.variance
        pooled = now.leverage * self._point(self.config)
        self._local = max(scatter, 0.0) / pooled if pooled else 1.0
        width = now.half_width(self._local * self._point(self.config), self._split.variance)
        self._predicted = width or None

    @property
    def split_dominates(self) -> bool:
        """Whether most of the variance at this size is the test split's, and it is too small."""
        now = precision_at(self._points, self._size)
        if now is None or self._split.error <= SPLIT_LIMIT * self._rho:
            return False
        scatter = now.leverage * self._local * self._point(self.config)
        return self._split.variance.variance > scatter

    def after(self, growth: Growth) -> NextRuns:
        """With the runs that an edit of the study file adds."""
        new, old = growth.after, growth.before
        points = list(self._points)
        for size in new.dataset_sizes:
            has = old.search.replicates if self._points and size in old.dataset_sizes else 0
            points += [float(size)] * (new.search.replicates - has)
        half_width, power = self._expected(points, new, self._split)
        return NextRuns(
            change=growth.change,
            reason=growth.reason,
            trials=growth.trials,
            device_seconds=self._cost(growth.runs()),
            half_width=self._half_width,
            expected_half_width=half_width,
            power=power,
        )

    def finished(self) -> NextRuns | None:
        """With the runs that the study file has and that have not ended; None without any."""
        left = [(cell, cell.counts.planned - cell.counts.ended) for cell in self._cells]
        waiting = sum(count for _, count in left)
        if not waiting:
            return None
        points = replicated(self.config.dataset_sizes, self.config.search.replicates)
        half_width, power = self._expected(points, self.config, self._split)
        costs = [self._seconds(cell.size) for cell, _ in left]
        known = [s * n for s, (_, n) in zip(costs, left, strict=True) if s is not None]
        return NextRuns(
            change="study run",
            reason="the rest of this study",
            trials=waiting,
            device_seconds=sum(known) if len(known) == len(left) else None,
            half_width=self._half_width,
            expected_half_width=half_width,
            power=power,
        )

    def with_bigger_split(self) -> NextRuns:
        """A new study, since test examples cannot be added to this one: as many as do, but at
        least twice as many."""
        limit = SPLIT_LIMIT * self._rho
        split = self._split.with_examples(max(self._split.enough(limit), 2 * self._split.examples))
        runs = planned_runs(self.config)
        half_width, power = self._expected(self._points, self.config, split)
        return NextRuns(
            change=f"a new study with {split.examples:,} test examples "
            f"(this one has {self._split.examples:,})",
            reason="most of the error is the test split's, which more runs do not lessen",
            trials=sum(runs.values()),
            device_seconds=self._cost(runs),
            half_width=self._half_width,
            expected_half_width=half_width,
            power=power,
        )

    def _expected(
        self, points: Sequence[float], config: StudyConfig, split: SplitNoise
    ) -> tuple[float | None, float | None]:
        """(half-width in nats, chance of a verdict were D what it seems)."""
        found = precision_at(points, self._size)
        if found is None:
            return None, None
        point = self._local * self._point(config)
        half_width = found.half_width(point, split.variance)
        if self._half_width is not None and self._predicted is not None:
            # What the present half-width has by chance is kept, so that the two compare.
            half_width *= self._half_width / self._predicted
        if self._difference is None:
            return half_width, None
        gap = max(margin + self._difference * side for side, margin in self._margins())
        return half_width, found.chance(gap, SURE, point, split.variance)

    def _margins(self) -> list[tuple[int, float]]:
        """For the challenger (1) and the reference (-1): what is added to its advantage before it
        must be above 0: -rho where it has to be better, rho where it is cheap enough not to be
        worse."""
        ratio = self._cost_ratio()
        cheap = ratio is not None and ratio <= CHEAPER, ratio is not None and ratio >= 1 / CHEAPER
        challenger, reference = (self._rho if found else -self._rho for found in cheap)
        return [(1, challenger), (-1, reference)]

    def _cost_ratio(self) -> float | None:
        """Of device-seconds of a run with an empty prefix cache, at the nearest size."""
        known = {(c.arm, c.size): c.cost.run_cold_device_seconds for c in self._cells}
        for size in sorted({c.size for c in self._cells}, key=self._distance):
            reference, challenger = (known.get((arm, size)) for arm in self._pair)
            if reference and challenger:
                return challenger / reference
        return None

    def _distance(self, size: int) -> float:
        return abs(math.log(size / self._size))

    def _cost(self, runs: dict[int, int]) -> float | None:
        """Device-seconds of so many runs by size, half of them in each arm."""
        costs = {size: self._seconds(size) for size in runs}
        known = [cost * runs[size] for size, cost in costs.items() if cost is not None]
        return sum(known) if len(known) == len(runs) else None

    def _seconds(self, size: int) -> float | None:
        """Mean device-seconds of a run: of those on record there, else of the nearest size with
        any, by optimizer steps."""
        near = sorted({c.size for c in self._cells}, key=lambda n: abs(math.log(n / size)))
        for known in near:
            costs = [c.cost.run_device_seconds for c in self._cells if c.size == known]
            found = mean([cost for cost in costs if cost is not None])
            if found is not None:
                return found * full_steps(self.config, size) / full_steps(self.config, known)
        return None

    def _point(self, config: StudyConfig) -> float:
        return self._noise.of_point(config.search.trials, config.confirm.seeds)
