"""What a number of rounds can detect and costs, before anything has run.

Confirm rounds are drawn and looked at as a study does, with a fixed seed, so that the same question
has the same answer. Costs are in runs at the asked size ("eq."), in proportion to examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from study.protocol.rounds.boundary import FIRST_LOOK
from study.protocol.rounds.decision import OPEN, OUTCOMES, Codes, Outcome, judge
from study.protocol.rounds.levels import MOST_ROUNDS
from study.protocol.rounds.rules import Floats, Rules

ROUNDS = (8, 16, 24, 40)
DIFFERENCES = (0.0, 1.0, 2.0, 4.0)
"""In rho."""
CURVE_ROUNDS = 3
"""That a study of several sizes runs at all of them."""
POWER = 0.8
USUAL_ROUNDS, NOISY_ROUNDS = 18, 40
"""With 16 the power at 2 rho is .85 where that of 18 is .88, for 1.2 eq. more."""
_NOISY = 1.4
"""Pair sd in rho from which more rounds are planned: halfway, in logarithms, from 1 to 2."""
_PATHS = 1000


@dataclass(frozen=True)
class Expected:
    """Of studies whose true difference is `difference`.

    Attributes:
        difference: nats, full - LIFT at the configurations that were found.
        rounds: mean.
        cost, cost_p90: mean and 90th percentile, eq., search included.
        chances: of each outcome that happens.
    """

    difference: float
    rounds: float
    cost: float
    cost_p90: float
    chances: dict[Outcome, float]

    @property
    def answered(self) -> float:
        """Chance of an answer, whichever."""
        return sum(chance for outcome, chance in self.chances.items() if outcome.is_answer)


@dataclass(frozen=True)
class Prospect:
    """A plan of `rounds` rounds.

    Attributes:
        detectable: nats: a difference that the last look at the latest shows with `POWER`.
        most_cost: eq., if all rounds run.
        split_limits: the test split alone forbids most answers; more test examples are needed.
    """

    rounds: int
    detectable: float
    most_cost: float
    split_limits: bool
    expected: tuple[Expected, ...]


@dataclass(frozen=True)
class Costs:
    """In eq.

    Attributes:
        search: of both arms.
        curve: what the rounds at other sizes add to one of the first `CURVE_ROUNDS`, both arms.
    """

    search: float
    curve: float = 0.0

    def after(self, rounds: Codes | Floats) -> Floats:
        """Cost of studies that ended after so many rounds."""
        at_all_sizes = self.curve * np.minimum(rounds, CURVE_ROUNDS)
        return np.asarray(self.search + 2.0 * rounds + at_all_sizes)


def curve_cost(sizes: Sequence[int]) -> float:
    """`Costs.curve` of a study of these sizes, the largest being the asked one."""
    return 2.0 * (sum(sizes) / max(sizes) - 1.0)


def rounds_for(pair_sd: float, rho: float, affordable: int | None = None) -> int:
    """N, from the noise that the search saw.

    Args:
        pair_sd: of a round's difference, nats.
        affordable: rounds that the budget pays for, if there is one.
    """
    wanted = USUAL_ROUNDS if pair_sd < _NOISY * rho else NOISY_ROUNDS
    most = wanted if affordable is None else min(wanted, affordable)
    return min(max(most, FIRST_LOOK), MOST_ROUNDS)


def detectable(rules: Rules, tau: float) -> float:
    """Nats; by the last look alone, so that looking earlier makes it slightly smaller still."""
    from scipy import special

    rounds, sd = rules.end, rules.pair_sd
    reach = float(rules.half_width(rounds, sd, tau))
    luck = float(special.stdtrit(rounds - 1, POWER)) * np.sqrt(sd**2 / rounds + tau**2)
    return rules.rho + max(rules.regret_full, rules.regret_lift) + reach + float(luck)


def prospects(
    rules: Rules,
    tau: float,
    costs: Costs,
    rounds: Sequence[int] = ROUNDS,
    differences: Sequence[float] = DIFFERENCES,
    paths: int = _PATHS,
) -> tuple[Prospect, ...]:
    """The table of `study plan`.

    Args:
        rules: those of the study, whatever its number of rounds; its `pair_sd` is the truth.
        tau: standard error of a difference that the test split makes, nats.
        differences: true ones, in rho.
        paths: simulated studies in each cell.
    """
    found = []
    noise = np.random.default_rng(0).standard_normal((paths, max(rounds) + 1))
    for count in rounds:
        planned = replace(rules, rounds=count, horizon=None)
        truths = rules.rho * np.array(differences)
        drawn = truths[:, None, None] + rules.pair_sd * noise[:, 1 : count + 1]
        drawn = drawn + tau * noise[:, :1]
        ended, codes = play(planned, drawn, tau)
        spent = costs.after(ended)
        expected = tuple(
            Expected(
                difference=float(truth),
                rounds=float(ended[row].mean()),
                cost=float(spent[row].mean()),
                cost_p90=float(np.quantile(spent[row], 0.9)),
                chances=chances_of(codes[row]),
            )
            for row, truth in enumerate(truths)
        )
        limits = bool(planned.split_reach(tau) > rules.rho / 2)
        most = float(costs.after(np.array(float(count))))
        found.append(Prospect(count, detectable(planned, tau), most, limits, expected))
    return tuple(found)


def not_worse(rules: Rules, tau: float, costs: Costs, arm: str = "lift") -> tuple[Prospect, ...]:
    """The cheapest question: whether `arm` is not worse, and nothing else, at no difference and at
    one of rho / 2 for it."""
    named = replace(rules, may_stop=(arm,))
    sign = 1.0 if arm == "lift" else -1.0
    return prospects(named, tau, costs, differences=(0.0, 0.5 * sign))


def play(rules: Rules, differences: Floats, tau: Floats | float) -> tuple[Codes, Codes]:
    """Look at many studies' rounds until each ends.

    Args:
        differences: (..., at least `rules.end`) nats.
        tau: see `Rules.half_width`; a number, or (...).

    Returns:
        (rounds that each took, its outcome as a place in `OUTCOMES`), of shape (...).
    """
    shape = differences.shape[:-1]
    rows = differences.reshape(-1, differences.shape[-1])
    taus = np.broadcast_to(np.asarray(tau, dtype=np.float64), shape).reshape(-1)
    ended = np.full(len(rows), rules.end)
    codes = np.full(len(rows), OPEN)
    sums, squares = rows.cumsum(axis=1), (rows**2).cumsum(axis=1)
    going = np.arange(len(rows))
    for looked in range(FIRST_LOOK, rules.end + 1):
        mean = sums[going, looked - 1] / looked
        spread = squares[going, looked - 1] - looked * mean**2
        sd = np.sqrt(np.maximum(spread, 0.0) / (looked - 1))
        found = judge(rules, looked, mean, sd, taus[going])
        over = found != OPEN
        ended[going[over]], codes[going[over]] = looked, found[over]
        going = going[~over]
        if not len(going):
            break
    return ended.reshape(shape), codes.reshape(shape)


def chances_of(codes: Codes) -> dict[Outcome, float]:
    """Shares of the outcomes that happened, in their order."""
    counts = np.bincount(codes.ravel(), minlength=len(OUTCOMES))
    return {OUTCOMES[i]: float(n / codes.size) for i, n in enumerate(counts) if n}
