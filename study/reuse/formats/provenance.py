"""Where a configuration comes from, in sentences for the head of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.basics.text_format import percent
from study.protocol.records import base_name
from study.protocol.words import ANSWERS, BASES
from study.reuse.formats.base import Run
from study.strategies import arm_noun

_SCORES = {
    "search_validation_loss": "validation loss in the search",
    "confirm_validation_loss": "validation loss of the confirm runs",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "test_macro_f1": "test macro-F1",
    "arm_test_loss": "test loss that the arm's tuning is expected to reach",
    "retention_rise": "rise of the retention loss",
    "base_test_loss": "{base}'s test loss",
    "base_retention_loss": "base model's retention loss",
}


def provenance(content: Mapping[str, Any]) -> list[str]:
    """Study, basis, size, trials, scores with intervals, seeds, fingerprints, versions; a sentence
    each."""
    run = Run(content)
    study, chosen = run.section("study"), run.section("chosen")
    size = f"{content['dataset_size']:,} examples"
    lines = [
        f"Best configuration of {arm_noun(run.arm)} at {size}, study {study['name']}.",
        *([chosen["rule"]] if chosen.get("rule") else []),
        *chosen.get("notes", ()),
        f"From {_listed('trial', chosen.get('trials', ()))} of a study at "
        f"{_basis(study.get('comparison'))}, seed "
        f"{study.get('seed')}, results in {study.get('results')}.",
    ]
    if chosen.get("interpolated"):
        names = ", ".join(chosen["interpolated"])
        lines.append(f"Interpolated between tested dataset sizes, never run as such: {names}.")
    base = run.section("scores").get("base") or base_name(str(content.get("task")), None)
    lines += [_scores(run.section("scores"), base), *_verdict(run.section("verdict"))]
    lines.append(_seeds(run.section("seeds")))
    model, data = run.section("model"), run.section("data")
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    lines += [
        f"Model {model.get('path')}{revision}, fingerprint {_known(model.get('fingerprint'))}.",
        f"Data fingerprint {_known(data.get('fingerprint'))}.",
    ]
    versions = run.section("versions")
    if versions:
        lines.append(f"Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}.")
    return lines


def _basis(comparison: str | None) -> str:
    """Of a file that another version may have written."""
    known = BASES.get(comparison or "")
    return f"equal {known.compound}" if known is not None else str(comparison)


def _scores(scores: Mapping[str, Any], base: str) -> str:
    parts = []
    for name, words in _SCORES.items():
        value, interval = scores.get(name), scores.get(f"{name}_interval")
        if value is None:
            continue
        between = f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        parts.append(f"{words.format(base=base)} {value:.4f}{between}")
    size = scores.get("dataset_size")
    where = f", measured at {size:,} examples" if size is not None else ""
    return f"Scores (losses in nats){where}: {', '.join(parts) or 'none on record'}."


def _verdict(verdict: Mapping[str, Any]) -> list[str]:
    if not verdict:
        return []
    arm, confidence = verdict.get("arm"), verdict.get("confidence")
    answer = str(verdict.get("answer"))
    said = ANSWERS[answer].predicate if answer in ANSWERS else answer
    sure = f", confidence {percent(confidence)}" if confidence is not None else ""
    about = f"{arm_noun(str(arm))} " if arm else ""
    return [f"The study's answer at {verdict['dataset_size']:,} examples: {about}{said}{sure}."]


def _known(value: Any) -> str:
    return "not on record" if value is None else str(value)


def _seeds(seeds: Mapping[str, Any]) -> str:
    single = [f"{k} {v}" for k, v in seeds.items() if v is not None and not isinstance(v, list)]
    lists = [f"{k} {', '.join(map(str, v))}" for k, v in seeds.items() if isinstance(v, list) and v]
    return f"Seeds: {'; '.join([*single, *lists])}."


def _listed(word: str, names: Any) -> str:
    return f"{word}{'s' if len(names) > 1 else ''} {', '.join(names)}"
