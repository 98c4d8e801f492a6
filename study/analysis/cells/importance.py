"""Which hyperparameters the loss depends on inside an arm: Optuna's PED-ANOVA.

Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces" (IJCAI). It compares where the best trials lie with where all of them lie, so it reads
no more than the order of the losses. It gives shares for pure noise too; so they are shown only
where the hyperparameters foretell that order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from study.analysis.cells.base import score_of
from study.config.space.read import CategoricalDomain, Domain, FixedDomain
from study.protocol.records import Stage, TrialRecord, TrialState
from study.protocol.results import StudyResults

MIN_TRIALS, MIN_FIT = 24, 0.2
"""Pure noise gets past both in 2 studies of 100 (24 trials of 3 hyperparameters; 48: in 0.2)."""
_BEST_SHARE = 1 / 3
"""The best trials. With Optuna's own tenth a choice of two that decided the loss (10 times the
noise) came first in 6 of 12 studies of 48 trials, with a third in 11."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """How much each hyperparameter matters for being among the best third of an arm's trials.

    Attributes:
        arm: which arm, over all sizes and replicates.
        shares: (hyperparameter, share) by falling share, which add up to 1; empty where hidden.
        fit: R^2 left out one by one, at most 1: how well the hyperparameters foretell the order
            of the losses. None with fewer than `MIN_TRIALS` trials to use.
        used, ended: search trials used, and all that ended. Used are complete ones with a finite
            loss, every value inside the search space and another such trial in their replicate.
        hidden: why there are no shares, a sentence; empty where there are.
    """

    arm: str
    shares: tuple[tuple[str, float], ...]
    fit: float | None
    used: int
    ended: int
    hidden: str = ""


def importances(results: StudyResults) -> tuple[Importance, ...]:
    """One per arm. Losses of different sizes and replicates are made comparable by taking each
    replicate's median off (a mean would follow a single bad trial). Deterministic."""
    space = results.config.space()
    return tuple(
        _importance(
            arm,
            {n: d for n, d in space.for_arm(arm).items() if not isinstance(d, FixedDomain)},
            [
                t
                for t in results.trials
                if t.spec.arm == arm and t.spec.stage is Stage.SEARCH and t.state.has_ended
            ],
        )
        for arm in results.config.arms.names
    )


def _importance(
    arm: str, domains: Mapping[str, Domain], trials: Sequence[TrialRecord]
) -> Importance:
    used, losses = _relative_losses(trials, domains)
    if len(domains) < 2:
        reason = "Fewer than two hyperparameters were searched, so there is nothing to compare."
        return Importance(arm, (), None, len(used), len(trials), reason)
    if len(used) < MIN_TRIALS:
        reason = f"{len(used)} usable trials are too few to tell; it takes {MIN_TRIALS}."
        return Importance(arm, (), None, len(used), len(trials), reason)
    values = [trial.spec.hyperparameters for trial in used]
    fit = leave_one_out_r2(_features(values, domains), _normal_scores(losses))
    if fit < MIN_FIT:
        reason = (
            "The hyperparameters hardly foretell which trial is better than another (R\u00b2 "
            f"{max(fit, 0.0):.2f}, below {MIN_FIT:g}), so shares would be noise."
        )
        return Importance(arm, (), fit, len(used), len(trials), reason)
    return Importance(arm, _ped_anova(values, losses, domains), fit, len(used), len(trials))


def leave_one_out_r2(features: Floats, target: Floats) -> float:
    """1 - PRESS / total sum of squares of a least-squares fit (Allen 1974): each value foretold by
    the others, the total around the mean of the others as well.

    Args:
        features: trials x features; a constant is added.
        target: one value per trial, at least two different ones.

    Returns:
        At most 1; 0 or less where the features are worth no more than the mean, and where a value
        cannot be foretold from the others at all.
    """
    n = len(target)
    design = np.column_stack([np.ones(n), features])
    left, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, singular > singular[0] * 1e-10]
    leverage = (basis**2).sum(axis=1)
    if leverage.max() > 1 - 1e-9:
        return 0.0
    press = (((target - basis @ (basis.T @ target)) / (1 - leverage)) ** 2).sum()
    total = (((target - target.mean()) * n / (n - 1)) ** 2).sum()
    return float(1 - press / total)


def _relative_losses(
    trials: Sequence[TrialRecord], domains: Mapping[str, Domain]
) -> tuple[list[TrialRecord], Floats]:
    replicates: dict[tuple[int, int], list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        complete = trial.state is TrialState.COMPLETE and score_of(trial) is not None
        if complete and _inside(trial.spec.hyperparameters, domains):
            replicates[trial.spec.size, trial.spec.replicate].append(trial)
    groups = [group for group in replicates.values() if len(group) > 1]
    losses = [np.array([score_of(t) for t in group], dtype=float) for group in groups]
    relative = [group - np.median(group) for group in losses]
    return [t for group in groups for t in group], np.concatenate([np.empty(0), *relative])


def _inside(chosen: Mapping[str, Any], domains: Mapping[str, Domain]) -> bool:
    """Whether every value is one that the search space has now."""
    for name, domain in domains.items():
        value, allowed = chosen.get(name), tuple(domain.values())
        if isinstance(domain, CategoricalDomain):
            if value not in allowed:
                return False
        elif value is None or not allowed[0] <= value <= allowed[1]:
            return False
    return True


def _features(values: Sequence[Mapping[str, Any]], domains: Mapping[str, Domain]) -> Floats:
    """Numbers as a parabola on their own (log) scale from -1 to 1, choices as indicators."""
    columns: list[Floats] = []
    for name, domain in domains.items():
        chosen = [v[name] for v in values]
        if isinstance(domain, CategoricalDomain):
            columns += [np.array([v == c for v in chosen], float) for c in domain.choices[1:]]
            continue
        scale = np.log if getattr(domain, "log", False) else np.asarray
        low, high = (float(scale(bound)) for bound in domain.values())
        unit = 2 * (scale(np.array(chosen, dtype=float)) - low) / (high - low) - 1
        columns += [unit, unit**2]
    return np.column_stack(columns)


def _normal_scores(losses: Floats) -> Floats:
    """Ranks as normal quantiles (Blom 1958), so that one loss off the scale decides nothing."""
    rank = np.empty(len(losses))
    rank[np.argsort(losses, kind="stable")] = np.arange(1, len(losses) + 1)
    return np.asarray(ndtri((rank - 0.375) / (len(losses) + 0.25)))


def _ped_anova(
    values: Sequence[Mapping[str, Any]], losses: Floats, domains: Mapping[str, Domain]
) -> tuple[tuple[str, float], ...]:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = {name: domain.distribution() for name, domain in domains.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # or it tells of the study it makes
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        optuna.trial.create_trial(
            params={name: chosen[name] for name in domains},
            distributions=distributions,
            value=float(loss),
        )
        for chosen, loss in zip(values, losses, strict=True)
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    found = get_param_importances(study, evaluator=evaluator)
    return tuple(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))
