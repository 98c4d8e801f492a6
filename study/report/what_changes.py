"""What would change an answer: another size, another memory limit, more runs."""

from __future__ import annotations

from collections.abc import Iterable

from study.analysis import counted
from study.analysis.verdict.records import Verdict
from study.protocol.words import BASES
from study.report.verdict import Setting
from study.strategies import arm_label


def what_changes(verdict: Verdict, setting: Setting) -> tuple[str, ...]:
    """One sentence each; sizes are read off the grid of verdicts."""
    made = [*_sizes(verdict, setting), _crossing(setting, verdict), _memory(verdict)]
    if verdict.failed_gates and not verdict.is_claim:
        missing = counted(len(verdict.failed_gates), "condition")
        made.append(
            f"A verdict {BASES[verdict.basis].phrase} needs {missing} more to be met, listed "
            "above with what to do."
        )
    if verdict.next_runs:
        first = verdict.next_runs[0]
        made.append(f"More runs: {first.reason} ({first.change}).")
    return tuple(text for text in made if text)


def _sizes(verdict: Verdict, setting: Setting) -> list[str]:
    if not setting.grid:
        return []
    n = verdict.dataset_size
    smaller = [v for v in reversed(setting.grid) if v.dataset_size < n]
    larger = [v for v in setting.grid if v.dataset_size > n]
    turns = [t for t in (_first_turn(verdict, side) for side in (smaller, larger)) if t]
    if turns:
        basis = BASES[verdict.basis].phrase
        return [f"At {turn.dataset_size:,} examples, {basis}, {_said(turn)}." for turn in turns]
    low, high = setting.grid[0].dataset_size, setting.grid[-1].dataset_size
    return [f"No dataset size from {low:,} to {high:,} examples would change it."]


def _first_turn(verdict: Verdict, others: Iterable[Verdict]) -> Verdict | None:
    return next((v for v in others if _stance(v) != _stance(verdict)), None)


def _stance(verdict: Verdict) -> str | None:
    return verdict.arm if verdict.is_claim else None


def _said(verdict: Verdict) -> str:
    if verdict.is_claim and verdict.arm is not None:
        return f"the answer is {arm_label(verdict.arm)}"
    return "the evidence supports no claim"


def _crossing(setting: Setting, verdict: Verdict) -> str:
    found = setting.crossover
    if found is None or found.low is None or found.high is None:
        return ""
    small, large = map(arm_label, found.sides(verdict.pair))
    return (
        f"The arms' test losses cross between {found.low:,.0f} and {found.high:,.0f} examples "
        f"{BASES[verdict.basis].phrase}: below {small} is better, above "
        f"{large}."
    )


def _memory(verdict: Verdict) -> str:
    if len(verdict.memory_gib) < 2:
        return ""
    (light, low), (heavy, high) = sorted(verdict.memory_gib, key=lambda item: item[1])
    if f"{low:.2f}" == f"{high:.2f}":
        return ""
    return (
        f"With a memory limit from {low:.2f} to {high:.2f} GiB per device only "
        f"{arm_label(light)} fits; {arm_label(heavy)} needs {high:.2f} (in runs "
        f"{BASES[verdict.basis].phrase})."
    )
