"""Confirm rounds of tuned studies, looked at after each, and how often what they say is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.protocol.rounds.boundary import FIRST_LOOK
from study.protocol.rounds.decision import OUTCOMES, Outcome
from study.protocol.rounds.planning import play, rounds_for
from study.protocol.rounds.rules import Rules, with_difficulty
from study.protocol.search.gates import Grade, bracket_gate, difficulty_gate, regret_gate
from tests.simulation.tuned import RHO, Tuned, TunedWorld

BETTER = {OUTCOMES.index(Outcome.LIFT_BETTER): 1, OUTCOMES.index(Outcome.FULL_BETTER): -1}
SETTLED = [
    OUTCOMES.index(outcome)
    for outcome in (Outcome.NO_DIFFERENCE, Outcome.LIFT_NOT_WORSE, Outcome.FULL_NOT_WORSE)
]
Change = Callable[[Rules], Rules]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Studies of one true difference; arrays of one length.

    Attributes:
        truth: D at the chosen configurations, nats.
        ended: rounds.
        codes: places in `OUTCOMES`.
        low, high: ends of the interval of the look that ended it.
        cost: eq., search included.
    """

    truth: np.ndarray
    ended: np.ndarray
    codes: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cost: np.ndarray

    @property
    def sign(self) -> np.ndarray:
        """1: LIFT was called better, -1: full, 0: neither."""
        return np.select([self.codes == code for code in BETTER], list(BETTER.values()), 0)

    @property
    def holds(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each interval's low, high end is on its side of the truth."""
        return self.low <= self.truth, self.high >= self.truth


def rules_of(world: TunedWorld, tuned: Tuned, rounds: int | None = None) -> Rules:
    """As a study makes them once its search has ended."""
    pair_sd = RHO * world.pair_sd
    return Rules(
        rho=RHO,
        rounds=rounds or rounds_for(pair_sd, RHO),
        pair_sd=pair_sd,
        regret_full=with_difficulty(RHO * tuned.full.regret, RHO, tuned.harder),
        regret_lift=with_difficulty(RHO * tuned.lift.regret, RHO, tuned.harder),
    )


def confirm(
    world: TunedWorld,
    studies: Sequence[Tuned],
    difference: float,
    sequences: int,
    at_best: bool = False,
    change: Change = lambda rules: rules,
    rounds: int | None = None,
    reused: float = 0.0,
    seed: int = 0,
) -> Sequences:
    """Rounds of tuned studies until each ends.

    Args:
        difference: true one in rho, at the chosen configurations.
        sequences: of all studies together.
        at_best: the difference is that at the arms' best configurations instead.
        change: a mutant of the rules.
        rounds: planned; None: as many as the noise asks for.
        reused: standard deviation in units of the pair's of what all rounds share because they
            share a subset: a mutant.
    """
    random = np.random.default_rng(seed)
    each = -(-sequences // len(studies))
    parts = []
    for tuned in studies:
        rules = change(rules_of(world, tuned, rounds))
        truth = RHO * (difference + (tuned.offset if at_best else 0.0))
        sd = RHO * world.pair_sd
        own = world.noise(random, (each, rules.end)) * np.sqrt(1.0 - reused**2)
        common = reused * random.standard_normal((each, 1))
        split = RHO * world.split * random.standard_normal((each, 1))
        drawn = truth + sd * (own + common) + split
        parts.append((truth, tuned.cost, rules, drawn))
    return _joined([_played(world, *part) for part in parts])


def _played(
    world: TunedWorld, truth: float, cost: float, rules: Rules, drawn: np.ndarray
) -> Sequences:
    tau = RHO * world.split
    ended, codes = play(rules, drawn, tau)
    mean, sd = np.empty(len(drawn)), np.empty(len(drawn))
    width = np.empty(len(drawn))
    for k in np.unique(ended):
        mine = ended == k
        seen = drawn[mine, :k]
        mean[mine], sd[mine] = seen.mean(axis=1), seen.std(axis=1, ddof=1)
        width[mine] = rules.half_width(int(k), sd[mine], tau)
    spent = cost + 2.0 * ended
    return Sequences(np.full(len(drawn), truth), ended, codes, mean - width, mean + width, spent)


def _joined(parts: Iterable[Sequences]) -> Sequences:
    found = list(parts)
    fields = ("truth", "ended", "codes", "low", "high", "cost")
    return Sequences(*(np.concatenate([getattr(part, name) for part in found]) for name in fields))


@dataclass(frozen=True)
class Row:
    """One figure of the table; `most` or `least` is its target."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None
    error: float = 0.0

    def passes(self, errors: float = 0.0) -> bool:
        """Met, but for so many standard errors."""
        slack = errors * self.error
        low = self.least is None or self.value >= self.least - slack
        return low and (self.most is None or self.value <= self.most + slack)


def judged(
    world: TunedWorld,
    studies: Sequence[Tuned],
    sequences: int,
    change: Change = lambda rules: rules,
    **how: float | int | None,
) -> list[Row]:
    """What issue and protocol ask of a world."""

    def at(difference: float, best: bool = False) -> Sequences:
        return confirm(world, studies, difference, sequences, best, change, **how)  # type: ignore[arg-type]

    zero, up, down, two, four = at(0.0), at(1.0), at(-1.0), at(2.0, True), at(4.0, True)
    best_up, best_down = at(1.0, True), at(-1.0, True)

    def share(
        name: str, happened: np.ndarray, least: float | None = None, most: float | None = None
    ) -> Row:
        # Sequences of one study have its configurations in common.
        by_study = happened.reshape(len(studies), -1).mean(axis=1)
        error = max(by_study.std() / np.sqrt(len(studies)), 1.0 / np.sqrt(200.0 * sequences))
        return Row(name, float(happened.mean()), least, most, float(error))

    def worse(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return first if first.mean() > second.mean() else second

    false = worse(up.sign == 1, down.sign == -1)
    best = worse(best_up.sign == 1, best_down.sign == -1)
    wrong = worse(up.sign == -1, down.sign == 1)
    ends = [end for found in (zero, up, down) for end in found.holds]
    worst = min(ends, key=np.mean)
    usual = world.equal and world.pair_sd <= 1.0 and world.split < 0.25

    def usually(value: float) -> float | None:
        """A target of the worlds that are not a known limit."""
        return value if usual else None

    rows = [
        share("false better at rho, at the choices", false, most=0.055),
        share("false better at rho, at the best", best, most=0.07 if world.equal else None),
        share("wrong direction", wrong, most=0.002),
        share("worst end of the interval", worst, least=0.94),
        share("power at 2 rho", two.sign == 1, least=usually(0.85)),
        Row("eq. at 2 rho", float(two.cost.mean()), most=usually(40.0)),
        Row("eq. at 2 rho, p90", float(np.quantile(two.cost, 0.9))),
        share("power at 4 rho", four.sign == 1, least=usually(0.99)),
        Row("eq. at 4 rho", float(four.cost.mean()), most=usually(28.0)),
        share("settled at 0", np.isin(zero.codes, SETTLED), least=usually(0.90)),
        Row("eq. at 0", float(zero.cost.mean()), most=usually(45.0)),
    ]
    regrets = np.array([[t.missed_full, t.missed_lift] for t in studies])
    rows += [
        Row("regret of full, mean", float(regrets[:, 0].mean())),
        Row("regret of LIFT, mean", float(regrets[:, 1].mean())),
        Row("difficulty or regret warned", float(np.mean([warned(t) for t in studies]))),
        Row("runs at 2 rho", float(np.mean([t.runs for t in studies]) + 2 * two.ended.mean())),
    ]
    return rows


def ever_wrong(
    rules: Rules, pair_sd: float, split: float, sequences: int, reused: float = 0.0, seed: int = 0
) -> float:
    """Share of sequences, looked at after every round to the last one, in which an end of the
    interval was ever on the wrong side of the truth; that of the worse end.

    Args:
        pair_sd, split: in rho.
        reused: see `confirm`.
    """
    random = np.random.default_rng(seed)
    own = random.standard_normal((sequences, rules.end)) * np.sqrt(1.0 - reused**2)
    common = reused * random.standard_normal((sequences, 1))
    drawn = RHO * (pair_sd * (own + common) + split * random.standard_normal((sequences, 1)))
    low_wrong, high_wrong = np.zeros(sequences, dtype=bool), np.zeros(sequences, dtype=bool)
    for k in range(FIRST_LOOK, rules.end + 1):
        mean, sd = drawn[:, :k].mean(axis=1), drawn[:, :k].std(axis=1, ddof=1)
        width = rules.half_width(k, sd, RHO * split)
        low_wrong |= mean - width > 0.0
        high_wrong |= mean + width < 0.0
    return float(max(low_wrong.mean(), high_wrong.mean()))


def warned(tuned: Tuned) -> bool:
    """Whether a gate says that the choices may not be the best ones."""
    gates = (difficulty_gate, regret_gate, bracket_gate)
    return any(gate(tuned.full, tuned.lift) is not Grade.PASS for gate in gates)


def as_table(found: Mapping[str, Sequence[Row]]) -> str:
    """Markdown, a column per world."""
    names = list(found)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for number, row in enumerate(found[names[0]]):
        cells = []
        for name in names:
            one = found[name][number]
            mark = "" if one.passes() else " **missed**"
            digits = 1 if "eq." in one.name or "runs" in one.name else 3
            cells.append(f"{one.value:.{digits}f}{mark}")
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_changes(**changes: object) -> Change:
    """Rules with other fields."""
    return lambda rules: replace(rules, **changes)  # type: ignore[arg-type]
