"""Which parameters train in which phase of a trial.

Import what is named here, and `base`. It knows no model's weights, no engine and no store.
A third strategy is one module, one line in `STRATEGIES` and one subclass of the conformance test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from study.basics.errors import UserError
from study.strategies.base import BlockLayout, Phase, Strategy
from study.strategies.full import FullStrategy
from study.strategies.lift import LiftStrategy

__all__ = [
    "STRATEGIES",
    "BlockLayout",
    "Phase",
    "Strategy",
    "arm_label",
    "arm_noun",
    "make_strategy",
    "trains_all",
]

STRATEGIES: dict[str, type[Strategy]] = {
    "full": FullStrategy,
    "lift": LiftStrategy,
}


def arm_label(arm: str) -> str:
    """How an arm is written for people, e.g. ``LIFT`` for ``lift``; of an arm that this program
    lacks, its name."""
    return STRATEGIES[arm].label if arm in STRATEGIES else arm


def arm_noun(arm: str) -> str:
    """An arm as a way to train, e.g. ``full fine-tuning``; its name as in `arm_label`."""
    return (arm in STRATEGIES and STRATEGIES[arm].noun) or arm_label(arm)


def trains_all(arm: str) -> bool:
    """Whether every parameter trains in every step of an arm's trials."""
    return arm in STRATEGIES and STRATEGIES[arm].trains_all


def make_strategy(
    arm: str, arm_options: Mapping[str, Any], hyperparameters: Mapping[str, Any]
) -> Strategy:
    """The strategy of one trial.

    Args:
        arm: a key of `STRATEGIES`.
        arm_options: the arm's section of study.yaml.
        hyperparameters: of the trial; those named like an option of the strategy replace it, the
            others (learning rate, ...) are none of its business.

    Raises:
        UserError: unknown arm, unknown option, or a value outside its range.
    """
    if arm not in STRATEGIES:
        raise UserError(f"arms.{arm}: unknown strategy. Use one of: {', '.join(STRATEGIES)}.")
    strategy = STRATEGIES[arm]
    names = strategy.model_fields
    unknown = sorted(arm_options.keys() - names)
    if unknown:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(f"arms.{arm}: unknown options {', '.join(unknown)}. Known: {known}.")
    options = {**arm_options, **{k: v for k, v in hyperparameters.items() if k in names}}
    try:
        made = strategy(**options)
    except ValidationError as error:
        raise UserError(f"{arm}: {'; '.join(map(_told, error.errors()))}") from None
    for one, other in strategy.exclusive:
        if getattr(made, one) is not None and getattr(made, other) is not None:
            raise UserError(
                f"{arm}: {one} ({options[one]}) and {other} ({options[other]}) exclude each other. "
                "Keep one of them."
            )
    return made


def _told(detail: ErrorDetails) -> str:
    option = ".".join(map(str, detail["loc"]))
    rule = detail["msg"].replace("Input should be", "must be").rstrip(".")
    remedy = detail.get("ctx", {}).get("remedy", "")
    return f"{option} {rule}, found {detail['input']!r}. {remedy}".rstrip()
