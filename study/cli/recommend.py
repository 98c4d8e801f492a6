"""`study recommend`: what past studies say about a model, a task and a dataset size."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from study.analysis import Verdict
from study.analysis.cells.base import Interval
from study.basics.text_format import percent
from study.cli.output import Console, print_facts, print_indented
from study.cli.verdicts import short, told_runs
from study.protocol.words import ANSWERS, BASES
from study.reuse.identity import Asked
from study.reuse.recommend import Declined, Judged, Recommendation, recommend, sizes_of
from study.strategies import arm_label

DECLINED = 3
"""Exit code: there is no answer, and nothing is wrong with the question."""


def recommend_and_print(asked: Asked, places: Sequence[str], as_json: bool) -> int:
    """Print the answer, or why there is none; the exit code."""
    found = recommend(asked, places)
    if as_json:
        told = _answer(found) if isinstance(found, Recommendation) else _no_answer(found)
        json.dump(told, sys.stdout, indent=1)
        print()
    else:
        console = Console()
        if isinstance(found, Recommendation):
            _print_answer(console, found)
        else:
            _print_no_answer(console, found)
    return 0 if isinstance(found, Recommendation) else DECLINED


def _print_answer(console: Console, found: Recommendation) -> None:
    verdict, study, best = found.verdict, found.judged.study, found.best
    console.print(Text(_sentence(verdict), style="bold"))
    run = best.file.run
    values = ", ".join(f"{name} {short(v)}" for name, v in best.hyperparameters.items())
    facts = {
        "Study": f"{study.name} ({study.place}), {sizes_of(study)}",
        "Comparison": BASES[verdict.basis].phrase,
        "Difference": _difference(verdict),
        "Cost": _cost(verdict),
        "Configuration": f"{values}; {run.steps:,} steps ({run.epochs:g} epochs)",
        "Chosen": f"{' and '.join(best.file.chosen.trials)}. {best.rule}",
        "Warnings": "; ".join(
            f"{gate.name}: {gate.found}" for gate in verdict.gates if gate.status == "warn"
        ),
        "Other studies": "; ".join(_other(j, verdict) for j in found.others),
    }
    print_facts(console, {name: text for name, text in facts.items() if text})
    for note in (*best.notes, *found.notes):
        console.print(note)
    console.print("\nNext:")
    for command in _commands(found):
        console.print(f"  {command}", soft_wrap=True)


def _print_no_answer(console: Console, found: Declined) -> None:
    console.print(Text(f"No answer: {found.reason}", style="bold"))
    verdict = found.verdict
    if verdict is not None and verdict.arm is not None and verdict.confidence is not None:
        console.print(f"It leans to {arm_label(verdict.arm)} ({percent(verdict.confidence)}).")
    for gate in () if verdict is None else verdict.failed_gates:
        text = f"Not met: {gate.name}. {gate.found}. Needed: {gate.needed}. {gate.remedy}"
        print_indented(console, text)
    if found.nearest:
        console.print("Nearest evidence:")
    for near in found.nearest:
        print_indented(console, f"{near.study.name} ({near.study.place}): {near.differs}")
    if found.next_runs:
        console.print(f"What would answer, in the file of study {found.nearest[0].study.name}:")
    for runs in found.next_runs:
        print_indented(console, runs.change)
        print_indented(console, told_runs(runs), 4)
    if found.smallest is not None:
        noise = "assumed noise" if found.smallest.assumed else "the nearest study's noise"
        console.print(
            f"The smallest study that would answer, {found.smallest.trials:,} trials; by {noise} "
            f"its chance of a verdict is {percent(found.smallest.chance)} where the arms differ by "
            "twice rho:"
        )
        for line in found.smallest.text.splitlines():  # to be copied: unbroken
            console.print(f"  {line}", soft_wrap=True)
    for note in found.notes:
        console.print(note)


def _sentence(verdict: Verdict) -> str:
    assert verdict.arm is not None  # a claim has one
    arm = arm_label(verdict.arm)
    why = ANSWERS[verdict.answer].reason.format(
        other=arm_label(verdict.pair.other(verdict.arm)),
        rho=verdict.rho,
        limit=verdict.memory_limit_gib or 0,
        sure="" if verdict.confidence is None else f" ({percent(verdict.confidence)} sure)",
    )
    where = ", beyond the tested sizes" if verdict.extrapolated else ""
    return f"Use {arm} for {verdict.dataset_size:,} training examples{where}: {why}."


def _difference(verdict: Verdict) -> str:
    gap, one = verdict.difference, verdict.one_run
    if gap is None:
        return ""
    text = f"test loss of {' - '.join(verdict.pair.labels)} {_span(gap, '+.3f')} nats"
    return text if one is None else f"{text}; of one more pair of runs {_span(one, '+.3f')}"


def _cost(verdict: Verdict) -> str:
    ratio = verdict.cost
    if ratio is None:
        return ""
    if ratio.may_be_any_ratio:
        ratio = Interval(ratio.value)
    return f"{verdict.pair.ratio} {_span(ratio, '.2f')} in device seconds of a cold run"


def _span(found: Interval, form: str) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:{form}}"
    return f"{found.value:{form}} (95 %: {found.low:{form}} to {found.high:{form}})"


def _other(judged: Judged, verdict: Verdict) -> str:
    told = f"{judged.study.name} ({judged.study.place})"
    theirs = judged.verdict
    if theirs is None or theirs.arm is None or not judged.reaches(verdict.dataset_size):
        return f"{told} has no verdict there"
    says = "says" if theirs.is_claim else "leans to"
    agrees = "agrees" if theirs.arm == verdict.arm else "disagrees"
    return f"{told} {agrees}: it {says} {arm_label(theirs.arm)}"


def _commands(found: Recommendation) -> Iterator[str]:
    place = shlex.quote(found.judged.study.place)
    yield (
        f"study best {place} --arm {found.verdict.arm} --dataset-size "
        f"{found.asked.dataset_size} --output best.yaml"
    )
    yield "study train best.yaml"


def _answer(found: Recommendation) -> dict[str, Any]:
    return {
        "answer": found.verdict.arm,
        "sentence": _sentence(found.verdict),
        "dataset_size": found.asked.dataset_size,
        "study": _study(found.judged),
        "verdict": found.verdict.to_dict(),
        "configuration": found.best.file.to_dict(),
        "others": [_study(judged) for judged in found.others],
        "notes": [*found.best.notes, *found.notes],
        "commands": list(_commands(found)),
    }


def _no_answer(found: Declined) -> dict[str, Any]:
    return {
        "answer": None,
        "reason": found.reason,
        "dataset_size": found.asked.dataset_size,
        "nearest": [
            {
                "study": near.study.name,
                "place": near.study.place,
                "dataset_sizes": near.study.config.dataset_sizes,
                "differs": near.differs,
            }
            for near in found.nearest
        ],
        "verdict": None if found.verdict is None else found.verdict.to_dict(),
        "next_runs": [dataclasses.asdict(runs) for runs in found.next_runs],
        "smallest_study": None if found.smallest is None else dataclasses.asdict(found.smallest),
        "notes": list(found.notes),
    }


def _study(judged: Judged) -> dict[str, Any]:
    verdict = judged.verdict
    return {
        "name": judged.study.name,
        "place": judged.study.place,
        "dataset_sizes": list(judged.sizes),
        "answer": None if verdict is None else verdict.answer,
        "arm": None if verdict is None else verdict.arm,
    }
