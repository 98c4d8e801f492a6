"""Where a configuration comes from, in sentences for the head of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.basics.text_format import percent
from study.protocol.records import base_name
from study.protocol.words import ANSWERS, BASES
from study.reuse.best_file import Best
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


def provenance(best: Best) -> list[str]:
    """Study, basis, size, trials, scores with intervals, seeds, fingerprints, versions; a sentence
    each."""
    study, chosen, model = best.study, best.chosen, best.model
    size = f"{best.dataset_size:,} examples"
    lines = [
        f"Best configuration of {arm_noun(best.arm)} at {size}, study {study.name}.",
        *([chosen.rule] if chosen.rule else []),
        *chosen.notes,
        f"From {_listed('trial', chosen.trials)} of a study at "
        f"{_basis(study.comparison)}, seed "
        f"{study.seed}, results in {study.results}.",
    ]
    if chosen.interpolated:
        names = ", ".join(chosen.interpolated)
        lines.append(f"Interpolated between tested dataset sizes, never run as such: {names}.")
    base = best.scores.get("base") or base_name(best.task, None)
    lines += [_scores(best.scores, base), *_verdict(best.verdict or {})]
    lines.append(_seeds(best.seeds.model_dump()))
    revision = f", revision {model.revision}" if model.revision else ""
    lines += [
        f"Model {model.path}{revision}, fingerprint {_known(model.fingerprint)}.",
        f"Data fingerprint {_known(best.data.fingerprint)}.",
    ]
    if best.versions:
        lines.append(f"Versions: {', '.join(f'{k} {v}' for k, v in best.versions.items())}.")
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
