"""Winners of earlier studies as the first search trials of a new one.

They are run again like any other trial; no earlier loss enters an estimate. Both arms get equally
many, each its own winners, so that neither starts with more knowledge than the other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from study.basics.errors import StoreError, UserError
from study.config.load import StudyConfig
from study.config.space.domains import (
    CategoricalDomain,
    Domain,
    FixedDomain,
    FloatDomain,
    IntDomain,
)
from study.config.space.read import SearchSpace
from study.protocol.plan import StudyPlan
from study.protocol.records import Stage, TrialRecord, TrialState, WarmStart
from study.protocol.results import StudyResults, winner_of
from study.reuse.warm_bounds import moved_space
from study.store.opening import read_study

MOST_SHARE = 0.5
"""Of a replicate's search trials: at least as many search anew."""


def warm_start(config: StudyConfig, earlier: Mapping[str, StudyResults]) -> WarmStart:
    """What a study tries first, by what earlier ones found.

    Of every earlier study the winners of each arm count, those of the sizes nearest to this
    study's (by ratio) first, each point once. Where `search.warm_start_bounds` asks for it, they
    move the ranges first. A value outside a range moves to its end; a parameter that this study
    does not search is dropped, one that the earlier study did not have comes from the design.

    Args:
        earlier: results by the name that the study file gives them.
    """
    most = math.floor(config.search.trials * MOST_SHARE)
    winners = {
        arm: [
            (name, winner)
            for name, results in earlier.items()
            for winner in _winners(results, arm, config.dataset_sizes)
        ]
        for arm in config.arms.names
    }
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    space, notes = _space(config, winners)
    for arm, own in winners.items():
        domains = space.for_arm(arm)
        found[arm] = []
        for name, winner in own:
            point = _fitted(winner, domains, f"{name} ({arm})", notes)
            if point and point not in [known for _, known in found[arm]]:
                found[arm].append((f"{name}: {winner.spec.trial_id}", point))
    used = min([most, *(len(points) for points in found.values())])
    for arm, points in found.items():
        if not points:
            notes.append(
                f"{', '.join(earlier)}: no winner of {arm}. Both arms start alike, so neither "
                "starts from earlier winners."
                if len(found) > 1
                else f"{', '.join(earlier)}: no winner of {arm}."
            )
    if not most:
        notes.append(
            f"search.trials {config.search.trials}: earlier winners take half of the trials at "
            "most, which is none here."
        )
    return WarmStart(
        points={arm: tuple(point for _, point in points[:used]) for arm, points in found.items()},
        sources={
            arm: tuple(source for source, _ in points[:used]) for arm, points in found.items()
        },
        notes=tuple(dict.fromkeys(notes)),
        space=None if space == config.space() else space.to_dict(),
    )


def warm_start_plan(plan: StudyPlan) -> str | None:
    """What earlier winners will do in a study; None without earlier studies."""
    start, search = plan.warm_start, plan.resolved.search
    if not search.warm_start:
        return None
    told = f"the first {start.trials} of {search.trials} search trials try earlier winners"
    if not start.trials:
        told = "no earlier winner is tried"
    return " ".join((f"Warm start: {told}.", *start.notes)).removesuffix(".")


def warm_start_effect(results: StudyResults) -> tuple[str, ...]:
    """How much the earlier winners helped so far, a sentence per arm; empty without any."""
    start = results.warm_start
    if start is None or not start.trials:
        return start.notes if start is not None else ()
    sentences = list(start.notes)
    for arm in results.config.arms.names:
        won = ended = 0
        gains = []
        for search in _searches(results, arm).values():
            winner = winner_of(search, results.config.search.trials)
            if winner is None:
                continue
            ended += 1
            won += winner.spec.index < start.trials
            scores: dict[bool, list[float]] = {True: [], False: []}
            for trial in search:
                if trial.state is TrialState.COMPLETE and trial.score is not None:
                    scores[trial.spec.index < start.trials].append(trial.score)
            if all(scores.values()):
                gains.append(min(scores[False]) - min(scores[True]))
        if not ended:
            continue
        told = f"Warm start, {arm}: an earlier winner won {won} of {ended} searches"
        if gains:
            gain = fmean(gains)
            told += (
                f"; the best of the {start.trials} of them is on average {abs(gain):.4f} nats "
                f"{'below' if gain >= 0 else 'above'} the best of the other "
                f"{results.config.search.trials - start.trials} trials"
            )
        sentences.append(f"{told}.")
    return tuple(sentences)


def _space(
    config: StudyConfig, winners: Mapping[str, Sequence[tuple[str, TrialRecord]]]
) -> tuple[SearchSpace, list[str]]:
    """The space to search, and what is to be said of its ranges."""
    how = config.search.warm_start_bounds
    if how == "keep":
        return config.space(), []
    points = {arm: [w.spec.hyperparameters for _, w in own] for arm, own in winners.items()}
    space, notes = moved_space(config.space(), points, how)
    return space, list(notes) or [f"Earlier winners give no reason to {how} a range."]


def _winners(results: StudyResults, arm: str, sizes: Sequence[int]) -> list[TrialRecord]:
    """Every replicate's winner, the nearest sizes' first."""
    if arm not in results.config.arms.names:
        return []

    def distance(winner: TrialRecord) -> tuple[float, int, int]:
        ratio = min(abs(math.log(winner.spec.size / size)) for size in sizes)
        return ratio, winner.spec.size, winner.spec.replicate

    searches = _searches(results, arm).values()
    found = (winner_of(search, results.config.search.trials) for search in searches)
    return sorted((winner for winner in found if winner is not None), key=distance)


def _searches(results: StudyResults, arm: str) -> dict[tuple[int, int], list[TrialRecord]]:
    """The search trials of each size and replicate."""
    found: dict[tuple[int, int], list[TrialRecord]] = defaultdict(list)
    for trial in results.trials:
        if trial.spec.arm == arm and trial.spec.stage is Stage.SEARCH:
            found[trial.spec.size, trial.spec.replicate].append(trial)
    return found


def _fitted(
    winner: TrialRecord, domains: Mapping[str, Domain], source: str, notes: list[str]
) -> dict[str, Any]:
    """A winner's point in this study's space; what had to change is added to `notes`."""
    point = {}
    for name, value in winner.spec.hyperparameters.items():
        if name not in domains:
            notes.append(f"{source}: {name} is not searched here and was dropped.")
            continue
        fitted = nearest(domains[name], value)
        if fitted is None:
            notes.append(f"{source}: {name} {value!r} is not among this study's and was dropped.")
            continue
        if fitted != value and not isinstance(domains[name], FixedDomain):
            notes.append(
                f"{source}: {name} {value:g} is not in this study's range; {fitted:g} is tried."
            )
        point[name] = fitted
    return point


def nearest(domain: Domain, value: Any) -> Any:
    """The value of a domain nearest to `value`; None if it has no such thing."""
    if isinstance(domain, FixedDomain):
        return domain.value
    if isinstance(domain, CategoricalDomain):
        return value if value in domain.choices else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    clipped = min(max(value, domain.low), domain.high)
    if domain.step is None:
        return float(clipped)
    steps = round((clipped - domain.low) / domain.step)
    if isinstance(domain, IntDomain):
        return domain.low + domain.step * steps
    assert isinstance(domain, FloatDomain)
    count = round((domain.high - domain.low) / domain.step) + 1
    return domain.from_unit((min(steps, count - 1) + 0.5) / count)


def earlier_study(source: str) -> StudyResults:
    """What is on record of a study that `search.warm_start` names.

    Raises:
        StoreError: there is no such study, or it cannot be read.
    """
    try:
        return read_study(source)
    except UserError as error:
        raise StoreError(f"search.warm_start: {source} cannot be read. {error}") from error
