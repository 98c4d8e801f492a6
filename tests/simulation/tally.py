"""From readings of many studies to the quantities that are judged, their targets beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.simulation.landscape import RHO, Floats
from tests.simulation.reading import Reading
from tests.simulation.scenarios import Scenario

COVERAGE = (0.93, 0.985)
WRONG_DIRECTION = 0.002
BETTER_AT_RHO = 0.06
FALSE_NON_INFERIORITY = 0.06
FALSE_CROSSOVER = 0.03
POWER = 0.80
CALIBRATION = 0.03
CALIBRATION_BIN = 1000
"""Studies per bin of stated probabilities."""
_HIDDEN = 1e-9


@dataclass(frozen=True)
class Found:
    """One judged quantity of one scenario.

    Attributes:
        name: what it is.
        values: one, or one per size.
        target: in words; empty where it is only shown.
        passes: None where it is only shown.
        words: instead of the values.
    """

    name: str
    values: tuple[float, ...] = ()
    target: str = ""
    passes: bool | None = None
    words: str = ""

    @property
    def text(self) -> str:
        return self.words or " ".join(f"{value:.3f}" for value in self.values)


class Tally:
    """Studies of one scenario.

    Args:
        truths: (studies, sizes) true D in nats.
        readings: what an analysis made of each.
    """

    def __init__(
        self, scenario: Scenario, truths: Sequence[Sequence[float]], readings: Sequence[Reading]
    ) -> None:
        self.scenario, self.readings = scenario, readings
        self.sizes = readings[0].sizes
        self.truths = np.array(truths)
        self._answers = np.array([r.answers for r in readings])

    def coverage(self) -> Floats:
        """(sizes,) share of studies whose interval holds the true D; one without any does not."""
        low, high = (np.array([getattr(r, end) for r in self.readings]) for end in ("low", "high"))
        return ((low <= self.truths) & (self.truths <= high)).mean(axis=0)

    def wrong_direction(self) -> float:
        """Share of studies in which an arm is called better that is worse by rho or more; at the
        size where it is largest."""
        lift = (self._answers == "better:lift") & (self.truths <= -RHO + _HIDDEN)
        full = (self._answers == "better:full") & (self.truths >= RHO - _HIDDEN)
        return float((lift | full).mean(axis=0).max())

    def better_at_rho(self) -> Floats | None:
        """(sizes where |D| is rho,) share of studies in which an arm is called better."""
        exact = np.isclose(np.abs(self.truths), RHO, rtol=0, atol=_HIDDEN).all(axis=0)
        if not exact.any():
            return None
        return self._called_better().mean(axis=0)[exact]

    def false_non_inferiority(self) -> float:
        """Share of studies in which an arm that is worse by rho or more is called the cheaper and
        not the worse; at the size where it is largest."""
        lift = (self._answers == "cheaper:lift") & (self.truths <= -RHO + _HIDDEN)
        full = (self._answers == "cheaper:full") & (self.truths >= RHO - _HIDDEN)
        return float((lift | full).mean(axis=0).max())

    def false_crossover(self) -> float | None:
        """Share of studies without a crossover in which one is claimed; None without any such."""
        without = ~self._crosses()
        claimed = np.array([r.crossover == "crossover" for r in self.readings])
        return float(claimed[without].mean()) if without.any() else None

    def true_crossover(self) -> tuple[float, float] | None:
        """Of the studies with a crossover: share in which it is claimed, and of these the share
        whose range holds it."""
        with_one = np.flatnonzero(self._crosses()).tolist()
        if not with_one:
            return None
        claimed = [k for k in with_one if self.readings[k].crossover == "crossover"]
        right = [self._holds_crossing(k) for k in claimed]
        return len(claimed) / len(with_one), float(np.mean(right)) if right else float("nan")

    def unlearned_recommended(self) -> float:
        """Share of studies in which an arm that learned nothing is recommended, a lean included;
        at the size where it is largest."""
        arms = self.scenario.unlearned | self.scenario.worse_than_base
        named = np.zeros(self._answers.shape, dtype=bool)
        for arm in arms:
            named |= np.char.endswith(self._answers, f":{arm}")
        return float(named.mean(axis=0).max())

    def power(self, rhos: float = 2.0) -> tuple[tuple[int, float], ...]:
        """(size, share of studies that call the better arm better) where |D| is so many rho."""
        exact = np.isclose(np.abs(self.truths), rhos * RHO, rtol=0, atol=_HIDDEN).all(axis=0)
        lift = (self._answers == "better:lift") & (self.truths > 0)
        full = (self._answers == "better:full") & (self.truths < 0)
        share = (lift | full).mean(axis=0)
        return tuple((n, float(s)) for n, s, e in zip(self.sizes, share, exact, strict=True) if e)

    def miscalibration(
        self, size: int, studies_per_bin: int = CALIBRATION_BIN, slack: float = 0.0
    ) -> float:
        """Largest gap in any bin of studies between a stated probability's mean and how often it
        came true, over all four probabilities at a size; less `slack` standard errors of how
        often that is by chance."""
        place = self.sizes.index(size)
        truth = self.truths[:, place]
        came_true = {
            "lift_better": truth > 0,
            "lift_better_by_rho": truth > RHO,
            "full_better": truth < 0,
            "full_better_by_rho": truth < -RHO,
        }
        worst = 0.0
        for name, happened in came_true.items():
            stated = np.array([getattr(r, name)[place] for r in self.readings])
            order = np.argsort(stated, kind="stable")
            bins = max(1, len(order) // studies_per_bin)
            for chosen in np.array_split(order, bins):
                mean = float(stated[chosen].mean())
                gap = abs(mean - float(happened[chosen].mean()))
                if not np.isfinite(gap):
                    return 1.0
                worst = max(worst, gap - slack * _chance(mean, len(chosen)))
        return worst

    def answers(self, size: int) -> str:
        """Share of the studies by answer at a size, most frequent first."""
        place = self.sizes.index(size)
        counts = Counter(self._answers[:, place].tolist())
        return ", ".join(f"{name} {n / len(self.readings):.2f}" for name, n in counts.most_common())

    def failed_gates(self) -> str:
        """Share of the studies in which a gate fails at any of the sizes."""
        counts = Counter(name for r in self.readings for name in r.failed)
        return ", ".join(f"{name} {n / len(self.readings):.3f}" for name, n in counts.most_common())

    def _called_better(self) -> np.ndarray:
        return np.char.startswith(self._answers, "better")

    def _crosses(self) -> np.ndarray:
        return (self.truths.min(axis=1) < 0) & (self.truths.max(axis=1) > 0)

    def _holds_crossing(self, study: int) -> bool:
        found = self.readings[study].crossover_range
        assert found is not None  # it was claimed
        signs = np.sign(self.truths[study])
        logs = np.log(self.sizes)
        # Whichever tested sizes the truth changes its sign between, in its own proportion.
        place = int(np.flatnonzero(signs[:-1] * signs[1:] <= 0)[0])
        left, right = self.truths[study][place : place + 2]
        zero = logs[place] + (logs[place + 1] - logs[place]) * left / (left - right)
        return bool(np.log(found[0]) - 1e-6 <= zero <= np.log(found[1]) + 1e-6)


def judged(tally: Tally, slack: float = 0.0, studies_per_bin: int = CALIBRATION_BIN) -> list[Found]:
    """All that a scenario has to show, by the targets.

    Args:
        slack: standard errors by which a share may miss its target: what chance alone does to so
            few studies.
        studies_per_bin: of the stated probabilities.
    """
    scenario, studies = tally.scenario, len(tally.readings)
    found = []
    if scenario.is_exact:
        found.append(_coverage(tally, slack))
        found.append(
            _at_most("wrong direction", tally.wrong_direction(), WRONG_DIRECTION, studies, slack)
        )
        false = tally.false_non_inferiority()
        found.append(
            _at_most("false non-inferiority", false, FALSE_NON_INFERIORITY, studies, slack)
        )
        found += _crossovers(tally, slack)
        found += _at_rho(tally, slack)
    if scenario.unlearned:
        found.append(
            _at_most("unlearned arm recommended", tally.unlearned_recommended(), 0.0, studies, 0.0)
        )
    if scenario.uniform:
        for size in (scenario.plan.middle, tally.sizes[-1]):
            gap = tally.miscalibration(size, studies_per_bin, slack)
            found.append(_at_most(f"miscalibration at {size}", gap, CALIBRATION, studies, 0.0))
    size = scenario.plan.middle
    found.append(Found(f"answers at {size}", words=tally.answers(size)))
    if gates := tally.failed_gates():
        found.append(Found("failed gates", words=gates))
    return found


def _coverage(tally: Tally, slack: float) -> Found:
    cover, (low, high) = tuple(tally.coverage().tolist()), COVERAGE
    studies = len(tally.readings)
    passes = all(
        low - slack * _chance(low, studies) <= share <= high + slack * _chance(high, studies)
        for share in cover
    )
    name = "coverage at " + " ".join(map(str, tally.sizes))
    if not tally.scenario.judge_coverage:
        return Found(name, cover)
    return Found(name, cover, f"{low} to {high}", passes)


def _at_rho(tally: Tally, slack: float) -> list[Found]:
    """What is said where |D| is exactly rho, or twice that."""
    found, studies, middle = [], len(tally.readings), tally.scenario.plan.middle
    better = tally.better_at_rho()
    if better is not None:
        shares = tuple(better.tolist())
        passes = max(shares) <= BETTER_AT_RHO + slack * _chance(BETTER_AT_RHO, studies)
        found.append(Found("better claimed at rho", shares, f"at most {BETTER_AT_RHO}", passes))
    for size, share in tally.power():
        name = f"power at 2 rho, {size} examples"
        enough = share >= POWER - slack * _chance(POWER, studies)
        judge = (f"at least {POWER:g}", enough) if size == middle else ("", None)
        found.append(Found(name, (share,), *judge))
    return found


def _crossovers(tally: Tally, slack: float) -> list[Found]:
    found, studies = [], len(tally.readings)
    without, with_one = tally.false_crossover(), tally.true_crossover()
    if without is not None:
        name = "crossover claimed without one"
        found.append(_at_most(name, without, FALSE_CROSSOVER, studies, slack))
    if with_one is not None:
        found.append(Found("crossover found; its range holds the true one", with_one))
    return found


def _at_most(name: str, value: float, limit: float, studies: int, slack: float) -> Found:
    passes = value <= limit + slack * _chance(limit, studies)
    return Found(name, (value,), f"at most {limit:g}", passes)


def _chance(share: float, studies: int) -> float:
    """Standard error of a share."""
    return math.sqrt(share * (1.0 - share) / studies)


def as_table(rows: Sequence[tuple[str, int, Found]]) -> str:
    """Markdown; rows are (scenario, studies, what was found)."""
    lines = ["| scenario | studies | judged | found | target | |", "|---|---|---|---|---|---|"]
    marks = {True: "pass", False: "FAIL", None: ""}
    lines += [
        f"| {name} | {studies} | {f.name} | {f.text} | {f.target} | {marks[f.passes]} |"
        for name, studies, f in rows
    ]
    return "\n".join(lines)
