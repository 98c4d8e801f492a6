"""The conditions for a verdict, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.cells.base import Gate
from study.analysis.verdict.records import Verdict
from study.report.base import Column, Section, Table

_MARKS = {"pass": "\u2713 pass", "warn": "! warn", "fail": "\u2717 fail"}


def gates_section(verdicts: Sequence[Verdict]) -> Section:
    """A table per distinct set of gates; empty without verdicts."""
    tables: dict[tuple[Gate, ...], list[int]] = {}
    for verdict in verdicts:
        if verdict.gates:
            tables.setdefault(verdict.gates, []).append(verdict.dataset_size)
    return Section(
        "gates",
        "Conditions for a verdict",
        paragraphs=(
            "Each must hold before the report recommends anything. One that failed forbids a "
            "verdict; a warning goes into its wording.",
        )
        if tables
        else (),
        tables=tuple(_table(gates, sizes) for gates, sizes in tables.items()),
    )


def _table(gates: Sequence[Gate], sizes: Sequence[int]) -> Table:
    columns = (
        Column("Condition"),
        Column("Status"),
        Column("Found", wide=True),
        Column("Needed", wide=True),
        Column("What to do", wide=True),
        Column("Known from"),
    )
    rows = tuple(
        (
            gate.name,
            _MARKS[gate.status],
            gate.found,
            gate.needed,
            gate.remedy,
            "the plan" if gate.from_plan else "the results",
        )
        for gate in gates
    )
    told = ", ".join(f"{n:,}" for n in sizes)
    return Table(f"For {told} examples.", columns, rows)
