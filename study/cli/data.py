"""What became of a study's rows, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from study.basics.text_format import counted, listed
from study.basics.text_safety import one_line
from study.protocol.records import KEPT_HEAD, DataSummary

_LOST = {
    "messages": "whole messages",
    "prompt": "the beginning of the prompt",
    "answer": "the end of the answer",
    "text": "the end of the text",
    "retention": "the end of a retention text",
}
_MOST_CLASSES = 20


def data_facts(data: DataSummary, sequence_length: int) -> dict[str, str]:
    """Rows read, kept, dropped and cut, the classes, and how long examples are."""
    facts = {}
    if data.rows:
        read = listed([_read(data, name, count) for name, count in data.rows.items()])
        facts["Rows"] = f"read {read}; kept {data.kept:,}"
    facts |= {
        "Data": f"{data.pool} to train on, {data.validation} validation, {data.test} test, "
        f"{data.retention or 'no'} retention",
        "Dropped": _dropped(data),
        "Cut": _cut(data, sequence_length),
    }
    if data.label_names:
        facts["Classes"] = _classes(data)
        facts["Head"] = "the base model's own" if data.head == KEPT_HEAD else "a new one"
    facts["Tokens"] = f"{data.mean_tokens:.0f} per example on average"
    if not data.label_names:
        facts["Tokens"] += f", {data.mean_target_tokens:.0f} of them with loss"
    if data.lengths:
        facts["Lengths"] = _lengths(data)
    return facts


def _read(data: DataSummary, name: str, taken: int) -> str:
    left = data.not_drawn.get(name, 0)
    return f"{taken + left:,} of data.{name}" + (f" and drew {taken:,} of them" if left else "")


def _dropped(data: DataSummary) -> str:
    """By the reason."""
    reasons = {"duplicate": data.duplicates_removed}
    reasons |= data.dropped or {"empty": data.empty_removed}
    gone = data.duplicates_removed + data.empty_removed
    reasons["more than data.retention_size"] = max(0, sum(data.rows.values()) - data.kept - gone)
    return ", ".join(f"{n:,} ({why})" for why, n in reasons.items() if n) or "none"


def _cut(data: DataSummary, sequence_length: int) -> str:
    if not data.truncated:
        return f"none: all fit into {sequence_length:,} tokens"
    lost = [f"{count:,} lost {_LOST.get(what, what)}" for what, count in data.cut.items()]
    return f"{counted(data.truncated, 'example')} to {sequence_length:,} tokens: {listed(lost)}"


def _classes(data: DataSummary) -> str:
    """Training examples of each; of many classes those with the most and the fewest."""
    names, counts = data.label_names, data.class_counts
    if len(names) <= _MOST_CLASSES:
        return ", ".join(_class(n, i, counts[i]) for i, n in enumerate(names))
    by_count = sorted(range(len(names)), key=lambda i: -counts[i])
    half = _MOST_CLASSES // 2
    most, fewest = (
        ", ".join(_class(names[i], i, counts[i]) for i in some)
        for some in (by_count[:half], by_count[-half:])
    )
    return f"{most}, {len(names) - 2 * half} more, {fewest}"


def _class(name: str, number: int, count: int) -> str:
    return f"{label_name(name, number)}: {count:,}"


def label_name(name: str, number: int) -> str:
    """A class's name, with its id where that is not the same."""
    return name if name == str(number) else f"{one_line(name)} ({number})"


def _lengths(data: DataSummary) -> str:
    if data.lengths == data.uncut_lengths:
        return f"{_spread(data.lengths)} tokens"
    return f"{_spread(data.uncut_lengths)} tokens; after cutting {_spread(data.lengths)}"


def _spread(lengths: Sequence[int]) -> str:
    median, high, longest = lengths
    return f"median {median:,}, 95th percentile {high:,}, longest {longest:,}"
