"""What was learned and what was forgotten for it."""

from __future__ import annotations

import altair as alt

from study.analysis import CellSummary, StudySummary
from study.analysis.verdict.records import Verdict
from study.protocol.words import BASES
from study.report.base import ARM_COLUMN, SIZE_COLUMN, Figure, Table, count, loss, numeric, table_of
from study.report.figures.figures import (
    HEIGHT,
    MUTED,
    WIDTH,
    Row,
    by_size,
    encodings,
    inline,
    make_figure,
    point,
    points_table,
    tell,
)
from study.report.phrases import directed
from study.strategies import arm_label


def draw_forgetting(summary: StudySummary) -> Figure | None:
    """Retention rise by dataset size; None when it was not measured."""
    rows = [
        point(cell, rise)
        for cell in summary.cells
        for replicate in cell.replicates
        for rise in replicate.retention_rises
    ]
    means = [point(c, c.retention_rise.mean) for c in summary.cells if c.retention_rise]
    if not means:
        return None
    title = "rise of retention loss (nats)"
    chart = by_size(summary, rows, means, title, 0.0, "no forgetting", WIDTH)
    most = max(means, key=lambda row: row["value"])
    return make_figure(
        "forgetting",
        chart,
        f"Mean rise of the loss on general text by dataset size. {tell(means)}",
        "Loss on held-out general text, minus the base model's. Higher means more forgotten.",
        f"The most was forgotten by {most['arm']} at {most['size']:,} examples: "
        f"{most['value']:+.3f} nats on general text.",
        points_table("Every run in the figure, in nats.", title, rows, "+.3f"),
    )


def draw_learning_forgetting(summary: StudySummary, verdict: Verdict | None) -> Figure | None:
    """Test loss against retention rise, a mark per confirm run; None when either is missing."""
    rows = [row for cell in summary.cells_by_size for row in _runs(cell)]
    if not rows:
        return None
    colour, shape, _ = encodings(summary)
    low, high = min(r["test"] for r in rows), max(r["test"] for r in rows)
    marks = alt.Chart(inline(rows)).mark_point(filled=True, opacity=0.7)
    zero = alt.Chart(inline([{"rise": 0.0}])).mark_rule(color=MUTED, strokeDash=[2, 3])
    chart = alt.layer(
        zero.encode(y="rise:Q"),
        marks.encode(
            x=alt.X(
                "test:Q",
                title="test loss (nats): learned more to the left",
                scale=alt.Scale(zero=False, nice=True, padding=8),
                axis=alt.Axis(grid=False),
            ),
            y=alt.Y("rise:Q", title="rise of retention loss (nats)"),
            color=colour,
            shape=shape,
            size=alt.Size(
                "size:Q",
                title="examples",
                scale=alt.Scale(type="log", range=[22, 170]),
                legend=alt.Legend(orient="right", values=list(summary.sizes), format=",d"),
            ),
        ),
    )
    return make_figure(
        "learning-forgetting",
        chart.properties(width=WIDTH - 60, height=HEIGHT),
        f"Rise of the retention loss against test loss of {len(rows)} confirm runs, whose test "
        f"losses go from {loss(low)} to {loss(high)}. {_means(summary)}",
        "A mark is one confirm run; larger marks trained on more examples. Less forgetting may "
        "only mean less learning, so compare marks above one another: equal test loss.",
        _takeaway(summary, verdict),
        _table(rows),
    )


def _runs(cell: CellSummary) -> list[Row]:
    return [
        point(cell, 0.0) | {"test": test, "rise": rise}
        for replicate in cell.replicates
        if len(replicate.test_losses) == len(replicate.retention_rises)
        for test, rise in zip(replicate.test_losses, replicate.retention_rises, strict=True)
    ]


def _means(summary: StudySummary) -> str:
    return tell([point(c, c.retention_rise.mean) for c in summary.cells if c.retention_rise])


def _takeaway(summary: StudySummary, verdict: Verdict | None) -> str:
    if verdict is not None and verdict.retention is not None:
        found, basis = verdict.retention, BASES[verdict.basis].phrase
        where = f"At {verdict.dataset_size:,} examples, {basis},"
        reference, challenger = verdict.pair.labels
        words = (f"nats less with {challenger}", f"nats less with {reference}", ".3f", "")
        plain = f"{where} the loss on general text rises by {directed(found.difference, *words)}"
        if found.matched is None:
            return f"{plain}; the arms' test losses do not overlap for a comparison at equal loss."
        return f"{plain}, and at equal test loss by {directed(found.matched, *words)}."
    told = [
        f"{arm_label(c.arm)}'s by {c.retention_rise.mean:+.3f}"
        for c in summary.cells
        if c.retention_rise is not None and c.size == summary.sizes[-1]
    ]
    return (
        f"At {summary.sizes[-1]:,} examples the loss on general text changed, "
        f"{' and '.join(told) or 'but was not measured'} nats."
    )


def _table(rows: list[Row]) -> Table:
    return table_of(
        "Every confirm run in the figure, in nats.",
        rows,
        (SIZE_COLUMN, lambda r: count(r["size"])),
        (ARM_COLUMN, lambda r: str(r["arm"])),
        numeric("Test loss", lambda r: loss(r["test"])),
        numeric("Rise of retention loss", lambda r: loss(r["rise"], sign=True)),
    )
