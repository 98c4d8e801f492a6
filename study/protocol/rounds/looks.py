"""The sequence of looks: the same for every reader of the same rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from study.protocol.rounds.boundary import FIRST_LOOK
from study.protocol.rounds.decision import OPEN, OUTCOMES, Outcome, judge
from study.protocol.rounds.rules import Floats, Rules


@dataclass(frozen=True)
class Round:
    """Both arms trained once on one fresh subset, with one seed and order.

    Attributes:
        index: 0-based.
        full, lift: test losses, nats; None: diverged, and again with a fresh seed.
        tau: standard error, over test examples, of the mean difference of the rounds up to this
            one.
    """

    index: int
    full: float | None
    lift: float | None
    tau: float = 0.0

    @property
    def difference(self) -> float | None:
        """Full - LIFT; None where an arm has none."""
        return None if self.full is None or self.lift is None else self.full - self.lift


@dataclass(frozen=True)
class Look:
    """What is known after a round. Differences in nats.

    Attributes:
        round: index of the last round that was looked at.
        rounds: those of them that have a difference, k.
        level: a_k, one-sided.
        mean, sd: of the differences.
        tau: see `Round`.
        low, high: ends of the interval; each holds, at all looks, with 1 - `Rules.error`.
        outcome: None: open.
        holds: what is already known whatever comes: outcomes that are claims.
        chance: predictive chance of an answer by the last round.
        further_rounds: expected until the study ends.
        split_share: of the squared half-width, what only more test examples would reduce.
    """

    round: int
    rounds: int
    level: float
    mean: float
    sd: float
    tau: float
    low: float
    high: float
    outcome: Outcome | None
    holds: tuple[Outcome, ...]
    chance: float
    further_rounds: float
    split_share: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; keys that a later version added are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {key: value for key, value in data.items() if key in names}
        known["holds"] = tuple(map(Outcome, known["holds"]))
        known["outcome"] = known["outcome"] and Outcome(known["outcome"])
        return cls(**known)


def looks_of(rules: Rules, rounds: Iterable[Round], budget_spent: bool = False) -> tuple[Look, ...]:
    """A look after each round from the third on, in the rounds' order whatever order they ended in.

    Rounds after one that is missing wait for it. Looks go on after one that decides, as rounds do
    where a user wants them; `decided` tells the first.

    Args:
        budget_spent: no further round can be paid for; concerns the last look.
    """
    by_index = {one.index: one for one in rounds}
    in_order: list[Round] = []
    while (found := by_index.get(len(in_order))) is not None:
        in_order.append(found)
    differences: list[float] = []
    looks = []
    for one in in_order:
        if one.difference is None:
            continue
        differences.append(one.difference)
        if FIRST_LOOK <= len(differences) < len(rules.levels):
            last = budget_spent and one is in_order[-1]
            looks.append(look_at(rules, one, np.array(differences), last))
    return tuple(looks)


def decided(looks: Sequence[Look]) -> Look | None:
    """The look that ended the study."""
    return next((look for look in looks if look.outcome is not None), None)


def look_at(rules: Rules, last: Round, differences: Floats, budget_spent: bool = False) -> Look:
    """The look after a round.

    Args:
        differences: (k,) of all rounds up to it that have one.
    """
    k = len(differences)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    width = float(rules.half_width(k, sd, last.tau))
    code = int(judge(rules, k, np.array([mean]), np.array([sd]), last.tau, budget_spent)[0])
    chances = [
        float(rules.chance(k, by, np.array(mean), np.array(sd), last.tau))
        for by in range(k + 1, rules.end + 1)
    ]
    # A study that would have ended by one look does not get to the next.
    ended = np.maximum.accumulate(chances)[:-1] if chances else np.array([])
    open_still = code == OPEN
    return Look(
        round=last.index,
        rounds=k,
        level=float(rules.levels[k]),
        mean=mean,
        sd=sd,
        tau=last.tau,
        low=mean - width,
        high=mean + width,
        outcome=None if open_still else OUTCOMES[code],
        holds=statements(rules, mean - width, mean + width),
        chance=max(chances, default=0.0),
        further_rounds=1.0 + float((1.0 - ended).sum()) if open_still else 0.0,
        split_share=rules.split_share(k, sd, last.tau),
    )


def statements(rules: Rules, low: float, high: float) -> tuple[Outcome, ...]:
    """The claims that an interval makes, the strongest first."""
    claims = {
        Outcome.LIFT_BETTER: low - rules.regret_full > rules.rho,
        Outcome.FULL_BETTER: high + rules.regret_lift < -rules.rho,
        Outcome.NO_DIFFERENCE: low > -rules.rho and high < rules.rho,
        Outcome.LIFT_NOT_WORSE: low > -rules.rho,
        Outcome.FULL_NOT_WORSE: high < rules.rho,
    }
    return tuple(outcome for outcome, holds in claims.items() if holds)
