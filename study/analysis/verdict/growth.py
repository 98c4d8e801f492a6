"""How a study can grow by an edit of its file, and what that takes.

Only what `study.protocol.extension` allows: more sizes, replicates, confirm seeds or search trials.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from study.analysis.cells.base import counted
from study.analysis.rules import FEWEST_PAIRS, FEWEST_REPLICATES, FEWEST_SIZES, REACH, SMALLEST_SPAN
from study.config.load import StudyConfig


@dataclass(frozen=True)
class Growth:
    """A study file next to the one it comes from.

    Attributes:
        before, after: both files.
    """

    before: StudyConfig
    after: StudyConfig

    @property
    def change(self) -> str:
        """The edit, e.g. ``search.replicates: 5, confirm.seeds: 3``."""
        told = [f"{key}: {new}" for key, old, new in self._counts() if new != old]
        if self.new_sizes:
            told.insert(0, f"dataset_sizes: {self.after.dataset_sizes}")
        return ", ".join(told)

    @property
    def reason(self) -> str:
        """What it does, e.g. ``2 more replicates at every size``."""
        told = [_MORE[key](new - old) for key, old, new in self._counts() if new != old]
        if self.new_sizes:
            named = ", ".join(f"{size:,}" for size in self.new_sizes)
            told.insert(0, f"{counted(len(self.new_sizes), 'more size')} ({named})")
        return ", ".join(told)

    @property
    def new_sizes(self) -> tuple[int, ...]:
        """Dataset sizes it adds, ascending."""
        return tuple(sorted(set(self.after.dataset_sizes) - set(self.before.dataset_sizes)))

    def runs(self) -> dict[int, int]:
        """Training runs it adds by size, both arms together."""
        old, new = planned_runs(self.before), planned_runs(self.after)
        added = {size: count - old.get(size, 0) for size, count in new.items()}
        for size in self.before.dataset_sizes:
            added[size] += self._repeated()
        return {size: count for size, count in added.items() if count}

    @property
    def trials(self) -> int:
        """Runs it adds in all."""
        return sum(self.runs().values())

    def _repeated(self) -> int:
        """Confirm runs per size that must run again for winners that more trials replace: the
        best of all trials is as likely to be any of them."""
        before = self.before.search.trials
        share = 1 - before / self.after.search.trials
        confirmed = self.before.search.replicates * self.before.confirm.seeds
        return round(share * confirmed * len(self.before.arms.names))

    def _counts(self) -> tuple[tuple[str, int, int], ...]:
        old, new = self.before, self.after
        return (
            ("search.replicates", old.search.replicates, new.search.replicates),
            ("search.trials", old.search.trials, new.search.trials),
            ("confirm.seeds", old.confirm.seeds, new.confirm.seeds),
        )


_MORE: dict[str, Callable[[int], str]] = {
    "search.replicates": lambda n: f"{counted(n, 'more replicate')} at every size",
    "search.trials": lambda n: f"{counted(n, 'more search trial')} in each replicate",
    "confirm.seeds": lambda n: f"{counted(n, 'more confirm seed')} for each winner",
}


def planned_runs(config: StudyConfig) -> dict[int, int]:
    """Training runs by size, both arms together."""
    one = config.search.trials + config.confirm.seeds
    runs = len(config.arms.names) * config.search.replicates * one
    return dict.fromkeys(config.dataset_sizes, runs)


def grown(
    config: StudyConfig,
    *,
    sizes: Sequence[int] = (),
    replicates: int = 0,
    seeds: int = 0,
    trials: int = 0,
) -> StudyConfig:
    """The file with so many more of each."""
    search = config.search.model_copy(
        update={
            "replicates": config.search.replicates + replicates,
            "trials": config.search.trials + trials,
        }
    )
    return config.model_copy(
        update={
            "dataset_sizes": sorted({*config.dataset_sizes, *sizes}),
            "search": search,
            "confirm": config.confirm.model_copy(update={"seeds": config.confirm.seeds + seeds}),
        }
    )


def mended(config: StudyConfig, size: int, extra_sizes: int = 0) -> StudyConfig:
    """The smallest growth with which the plan's gates hold at `size`; the file itself where they
    do. Sizes are added between and below those there are, where examples are known to be enough,
    unless a larger one is asked about.

    Args:
        extra_sizes: beyond what the gates need.
    """
    sizes = set(config.dataset_sizes)
    if not min(sizes) / REACH <= size <= max(sizes) * REACH:
        sizes.add(size)
    if max(sizes) < SMALLEST_SPAN * min(sizes):
        sizes.add(max(1, max(sizes) // SMALLEST_SPAN))
    wanted = max(FEWEST_SIZES, len(sizes)) + extra_sizes
    replicates = max(FEWEST_REPLICATES, config.search.replicates)
    seeds = max(math.ceil(FEWEST_PAIRS / replicates), config.confirm.seeds)
    return grown(
        config,
        sizes=filled(sorted(sizes), wanted),
        replicates=replicates - config.search.replicates,
        seeds=seeds - config.confirm.seeds,
    )


def filled(sizes: Sequence[int], count: int) -> list[int]:
    """`count` sizes, where there is room: new ones in the widest gaps, evenly by ratio."""
    gaps = list(itertools.pairwise(sizes))
    new = [0] * len(gaps)
    for _ in range(count - len(sizes)):
        room = [k for k, (low, high) in enumerate(gaps) if high - low > 2 * new[k] + 1]
        if not room:
            break
        new[max(room, key=lambda k: math.log(gaps[k][1] / gaps[k][0]) / (new[k] + 1))] += 1
    added = {
        tidy(low * (high / low) ** (part / (number + 1)), low, high)
        for (low, high), number in zip(gaps, new, strict=True)
        for part in range(1, number + 1)
    }
    return sorted({*sizes, *added})


def nearest_gap(sizes: Sequence[int], size: float) -> int | None:
    """A size in the middle of the gap that `size` lies in, or lies nearest to; None without."""
    pairs = [p for p in itertools.pairwise(sizes) if p[1] > p[0] + 1]
    middles = [tidy(math.sqrt(low * high), low, high) for low, high in pairs]
    return min(middles, key=lambda middle: abs(math.log(middle / size)), default=None)


def tidy(value: float, low: int, high: int) -> int:
    """To two digits where that stays between `low` and `high`, else to a whole number."""
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    found = round(value / unit) * unit
    return found if low < found < high else round(value)
