"""What one run costs, in time and memory, over dataset size."""

from __future__ import annotations

import altair as alt

from study.analysis import CellSummary, StudySummary
from study.report.base import BY_CELL, Figure, Table, gib, numeric, seconds, table_of
from study.report.figures.figures import HALF_WIDTH, Row, by_size, make_figure, point, tell


def draw_cost(summary: StudySummary) -> Figure | None:
    """Device-seconds of one cold run and peak memory by dataset size; None without such a run."""
    spent = [
        point(c, c.cost.run_cold_device_seconds)
        for c in summary.cells
        if c.cost.run_cold_device_seconds is not None
    ]
    peaks = [
        point(c, c.cost.peak_memory_bytes / 2**30)
        for c in summary.cells
        if c.cost.peak_memory_bytes is not None
    ]
    if not spent or not peaks:
        return None
    left = by_size(summary, [], spent, "device-seconds per run", None, "", HALF_WIDTH, zero=True)
    right = by_size(summary, [], peaks, "peak memory (GiB)", None, "", HALF_WIDTH, zero=True)
    return make_figure(
        "cost",
        alt.hconcat(left, right, spacing=28),
        f"Device-seconds per cold run by dataset size. {tell(spent, '.1f')} "
        f"Peak memory in GiB. {tell(peaks, '.2f')}",
        "Left: mean device-seconds of one run trained to its last step, with an empty prefix cache "
        "at its start. "
        "Right: the largest memory of any run, on its largest rank.",
        _dearest(spent, peaks),
        _table(summary.cells_by_size),
    )


def _dearest(spent: list[Row], peaks: list[Row]) -> str:
    last = max(row["size"] for row in spent)
    costs = [f"{r['value']:,.1f} ({r['arm']})" for r in spent if r["size"] == last]
    memory = [f"{r['value']:.2f} GiB ({r['arm']})" for r in peaks if r["size"] == last]
    text = f"At {last:,} examples one run takes {' and '.join(costs)} device seconds"
    return f"{text}, and peaks at {' and '.join(memory)}." if memory else f"{text}."


def _table(cells: tuple[CellSummary, ...]) -> Table:
    return table_of(
        "The drawn means and peaks.",
        cells,
        *BY_CELL,
        numeric("Device-seconds per cold run", lambda c: seconds(c.cost.run_cold_device_seconds)),
        numeric("Peak memory (GiB)", lambda c: gib(c.cost.peak_memory_bytes)),
    )
