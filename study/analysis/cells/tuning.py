"""Whether searches are long enough: what the second half of an arm's search trials still brings.

With few trials a winner's loss is the luck of which learning rates were drawn, and so is the
arms' difference. `best_of_k` measures what more trials bring; here it is judged, and before
anything has run, predicted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from study.analysis.cells.base import Gate
from study.analysis.cells.best_of_k import BestOfK
from study.config.load import StudyConfig
from study.strategies import arm_label

ASSUMED_RANGE = 0.1
"""Nats over which the losses of a search's configurations lie, evenly, as those of a bowl in two
hyperparameters do; until there are trials that tell. With 8 trials the second four then bring
0.009 nats."""


def last_gain(losses_over: float, trials: int) -> float:
    """Nats that the second half of so many trials is expected to bring, their losses lying evenly
    over so many nats: the lowest of k lies at the (k + 1)-th part."""
    return losses_over * (1 / (trials // 2 + 1) - 1 / (trials + 1))


def trials_needed(losses_over: float, rho: float) -> int:
    """The fewest trials, an even number, whose second half is expected to bring at most `rho`."""
    # k / ((k + 1) (2 k + 1)) <= rho / losses_over, for the half k.
    steep = losses_over / rho - 3
    if steep * steep <= 8 or steep < 0 or last_gain(losses_over, 2) <= rho:
        return 2
    return 2 * max(1, math.ceil((steep + math.sqrt(steep * steep - 8)) / 4 - 1e-9))


def searches(config: StudyConfig, arm: str) -> bool:
    """Whether an arm has a hyperparameter with more than one value."""
    return any(len(set(domain.values())) > 1 for domain in config.space().for_arm(arm).values())


def range_on_record(
    tuning: Sequence[BestOfK], sizes: Collection[int] | None = None
) -> float | None:
    """`ASSUMED_RANGE` as trials on record have it, in the arm and at the size where it is widest;
    None where no search of two trials has ended.

    Args:
        sizes: to look at; None: all.
    """
    found = [
        gain / last_gain(1.0, curve.trials)
        for curve in tuning
        if (sizes is None or curve.size in sizes) and (gain := curve.last_doubling) is not None
    ]
    return max(found, default=None)


def planned_trials(config: StudyConfig, tuning: Sequence[BestOfK] = ()) -> int:
    """Trials that each search of a plan will need, by what is on record at any size, else by what
    is assumed; as many as are planned where those will do."""
    if not any(searches(config, arm) for arm in config.arms.names):
        return config.search.trials
    wide = range_on_record(tuning) or ASSUMED_RANGE
    return max(config.search.trials, trials_needed(wide, config.decision.rho))


def search_trials(config: StudyConfig, tuning: Sequence[BestOfK], sizes: Collection[int]) -> int:
    """Trials that the searches at `sizes` need; as many as there are where those will do."""
    rho, planned = config.decision.rho, config.search.trials
    gains = [curve.last_doubling for curve in tuning if curve.size in sizes]
    able = any(searches(config, arm) for arm in config.arms.names)
    if not able or (planned > 1 and all(gain is None or gain <= rho for gain in gains)):
        return planned
    wide = range_on_record(tuning, sizes) or ASSUMED_RANGE
    return max(planned + 1, trials_needed(wide, rho))


def tuning_gate(
    config: StudyConfig,
    tuning: Sequence[BestOfK],
    sizes: Collection[int],
    arms: Sequence[str],
) -> Gate:
    """Judges what the second half of the search trials brought, in each of the arms and at each
    size.

    Args:
        sizes: next to the asked one.
    """
    rho, told, short, known = config.decision.rho, [], False, True
    for arm in arms:
        gain, found = _largest_gain(config, arm, tuning, sizes)
        if gain is None:
            known = False
        elif gain > rho and not searches(config, arm):
            found = "nothing is searched"
        else:
            short = short or gain > rho
        told.append(f"{arm_label(arm)}: {found}")
    return Gate(
        "Search length",
        "fail" if short else "pass" if known else "warn",
        "; ".join(told),
        f"the second half of the search trials lowers the best validation loss by at most {rho:g} "
        "nats, at the sizes next to the asked one",
        f"Raise `search.trials`, to about {search_trials(config, tuning, sizes)}."
        if short
        else ""
        if known
        else "Let the study go on.",
        from_plan=True,
    )


def _largest_gain(
    config: StudyConfig, arm: str, tuning: Sequence[BestOfK], sizes: Collection[int]
) -> tuple[float | None, str]:
    """(nats, in words); infinite where a search is a single draw, None where nothing is known."""
    if config.search.trials == 1:
        return math.inf, "one trial"
    curves = [curve for curve in tuning if curve.arm == arm and curve.size in sizes]
    found = [(gain, c) for c in curves if (gain := c.last_doubling) is not None]
    if not found:
        return None, "unknown"
    gain, curve = max(found, key=lambda entry: entry[0])
    trials = f"from {curve.trials // 2} to {curve.trials} trials at {curve.size:,}"
    return gain, f"{gain:.4f} nats {trials}"
