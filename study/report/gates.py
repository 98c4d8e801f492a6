"""The conditions for a verdict, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.cells.base import Gate
from study.analysis.verdict.records import Verdict
from study.report.base import Column, Section, Table, table_of

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
    told = ", ".join(f"{n:,}" for n in sizes)
    return table_of(
        f"For {told} examples.",
        gates,
        (Column("Condition"), lambda gate: gate.name),
        (Column("Status"), lambda gate: _MARKS[gate.status]),
        (Column("Found", wide=True), lambda gate: gate.found),
        (Column("Needed", wide=True), lambda gate: gate.needed),
        (Column("What to do", wide=True), lambda gate: gate.remedy),
        (Column("Known from"), lambda gate: "the plan" if gate.from_plan else "the results"),
    )
