"""The smallest new study that would answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import yaml

from study.analysis.cells.tuning import planned_trials
from study.analysis.curve.noise import noise_on_record, split_error
from study.analysis.rules import (
    FEWEST_PAIRS,
    FEWEST_REPLICATES,
    FEWEST_SIZES,
    SMALLEST_SPAN,
    pairs_of,
)
from study.analysis.summary import gather_evidence
from study.analysis.verdict.growth import filled, grown
from study.analysis.verdict.power import predict_power
from study.config.load import StudyConfig, parse_config
from study.reuse.identity import TASKS, Asked, local_path
from study.reuse.past_studies import PastStudy

_TRIALS = 8
_TEST_EXAMPLES = 1000
"""Assumed of a test split that nothing is known of."""


@dataclass(frozen=True)
class SmallestStudy:
    """A study file to start from.

    Attributes:
        text: YAML; what only the user knows is marked ``<--``.
        trials: training runs in all.
        chance: of a verdict in the middle of its sizes for an arm that is better by 2 rho; None
            where nothing is known of the noise but what is assumed, see `assumed`.
        assumed: the noise is assumed, not measured by a past study.
    """

    text: str
    trials: int
    chance: float
    assumed: bool


def smallest_study(
    asked: Asked, model: str, near: PastStudy | None, same_task: bool
) -> SmallestStudy:
    """A study whose largest size is the asked one: with as few sizes, replicates and runs as a
    verdict needs, and as many more as give it an 80 % chance of one.

    Args:
        model: as the study file is to name it.
        near: the nearest evidence: its noise and its search space are taken, and its data where
            they are the same task's.
        same_task: whether they are.
    """
    low = max(1, asked.dataset_size // SMALLEST_SPAN)
    sizes = filled([low, asked.dataset_size], FEWEST_SIZES) if low < asked.dataset_size else [1, 8]
    known = near.config if near is not None else None
    settings: dict[str, Any] = {
        "name": "answer",
        "model": {"path": model},
        "task": _task(asked, known),
        "data": _data(asked, known if same_task else None),
        "dataset_sizes": sizes,
        "arms": list(pairs_of(() if known is None else known.arms.names)[0]),
        "search": {"trials": _TRIALS, "replicates": FEWEST_REPLICATES},
        "confirm": {"seeds": -(-FEWEST_PAIRS // FEWEST_REPLICATES)},
        "decision": {"dataset_size": asked.dataset_size},
    }
    if known is not None:
        settings["decision"]["rho"] = known.decision.rho
        settings["comparison"] = known.comparison
    config = parse_config(settings)
    results = None if near is None else near.results()
    evidence = None if results is None else gather_evidence(results)
    curve = None if evidence is None else evidence.curve
    tuning = () if evidence is None or not same_task else evidence.tuning
    trials = planned_trials(config, tuning)
    config = grown(config, trials=trials - config.search.trials)
    settings["search"]["trials"] = trials
    base = results.base if results is not None and same_task else None
    examples = results.data.test if results is not None and results.data else _TEST_EXAMPLES
    power = predict_power(
        config,
        noise_on_record(known.search.trials if known is not None else trials, curve),
        split_error(config.task, examples, curve if same_task else None, base),
        tuning,
    )
    chance = power.middle.claim
    if power.advice is not None and power.advised is not None:
        config, chance = power.advice.after, power.advised
        settings["dataset_sizes"] = config.dataset_sizes
        settings["search"] = {
            "trials": config.search.trials,
            "replicates": config.search.replicates,
        }
        settings["confirm"] = {"seeds": config.confirm.seeds}
    unknown = set() if known is not None and same_task else set(settings["data"])
    if asked.data:
        unknown.discard("train")
    return SmallestStudy(_text(settings, unknown), _trials(config), chance, curve is None)


def _task(asked: Asked, known: StudyConfig | None) -> str:
    if asked.task in TASKS:
        return str(asked.task)
    return known.task if known is not None else TASKS[0]


def _data(asked: Asked, known: StudyConfig | None) -> dict[str, Any]:
    if known is not None:
        return known.data.model_dump(mode="json", exclude_defaults=True)
    files = [str(local_path(path)) for path in asked.data] or ["train.jsonl"]
    train: Any = files[0] if len(files) == 1 else files
    if asked.task == "sequence-classification":
        return {"train": train, "text": "text", "label": "label"}
    return {"train": train, "prompt": "{prompt}\n", "response": "{response}"}


def _trials(config: StudyConfig) -> int:
    one = config.search.replicates * (config.search.trials + config.confirm.seeds)
    return len(config.arms.names) * len(config.dataset_sizes) * one


def _text(settings: dict[str, Any], unknown: Collection[str]) -> str:
    """YAML, a line for each setting.

    Args:
        unknown: keys of the section `data` that only the user knows.
    """
    lines = []
    for name, value in settings.items():
        if not isinstance(value, dict):
            lines.append(f"{name}: {_plain(value)}")
            continue
        lines.append(f"{name}:")
        for key, entry in value.items():
            mark = "  # <-- yours" if name == "data" and key in unknown else ""
            lines.append(f"  {key}: {_plain(entry)}{mark}")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    """JSON is YAML; words need no quotes."""
    bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/.][\w/.-]*", value)
    if bare and yaml.safe_load(value) == value:  # unlike `no` and `null`
        return str(value)
    return json.dumps(value, ensure_ascii=False)
