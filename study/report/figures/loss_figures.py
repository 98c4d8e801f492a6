"""Losses over dataset size, and over training."""

from __future__ import annotations

from typing import Any

import altair as alt

from study.analysis import ReplicateSummary, StudySummary
from study.protocol.records import TrialRecord, base_name
from study.report.base import (
    ARM_COLUMN,
    SIZE_COLUMN,
    Column,
    Figure,
    Table,
    count,
    loss,
    numeric,
    table_of,
)
from study.report.figures.figures import (
    HALF_WIDTH,
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
from study.strategies import arm_label


def draw_loss(summary: StudySummary) -> Figure | None:
    """Every run's loss and the means by dataset size; None without any loss."""
    split = summary.split
    rows: list[Row] = []
    for cell in summary.cells:
        for replicate in cell.replicates:
            found = replicate.test_losses if split == "test" else _known(replicate.search_score)
            rows += [point(cell, value) for value in found]
    means = [point(cell, mean.mean) for cell in summary.cells if (mean := cell.loss(split))]
    if not means:
        return None
    base = summary.base_loss(split)
    title = f"{split} loss (nats)"
    named = base_name(summary.config.task, summary.base)
    chart = by_size(summary, rows, means, title, base, f"{named} {loss(base)}", WIDTH)
    runs = "confirm run" if split == "test" else "replicate's winner"
    caption = f"Small marks: one {runs} each. Large marks and lines: means over replicates."
    if base is not None:
        caption += f" Dotted line: the {named}'s."
    return make_figure(
        "loss",
        chart,
        f"Mean {split} loss by dataset size. {tell(means)}",
        caption,
        _lowest(means, split),
        points_table("Every run in the figure, in nats.", title, rows),
    )


def draw_curves(summary: StudySummary) -> Figure | None:
    """Validation loss over training of every replicate's winner, one panel per dataset size."""
    start = summary.base_loss("validation") if summary.config.task == "causal-lm" else None
    panels: dict[int, list[Row]] = {}
    won: list[tuple[ReplicateSummary, TrialRecord]] = []
    for cell in summary.cells_by_size:
        for replicate in cell.replicates:
            if replicate.winner is not None:
                won.append((replicate, replicate.winner))
                panels.setdefault(cell.size, []).extend(_curve(replicate.winner, start))
    if not panels:
        return None
    sizes = sorted(panels)
    losses = [row["value"] for rows in panels.values() for row in rows]
    extent = [min(losses), max(losses)]
    wide = WIDTH if len(sizes) == 1 else HALF_WIDTH
    charts = [_curve_panel(summary, size, panels[size], extent, wide) for size in sizes]
    caption = "One line per replicate: the search trial that won it."
    if start is not None:
        caption += " All lines start at the base model's validation loss."
    return make_figure(
        "curves",
        alt.concat(*charts, columns=2, spacing=22),
        f"Validation loss over optimizer steps of each replicate's winner at "
        f"{', '.join(f'{n:,}' for n in sizes)} examples, "
        f"from {loss(extent[1])} at most to {loss(extent[0])} at least.",
        caption,
        _where_lowest(won),
        _curve_table(won),
    )


def _where_lowest(won: list[tuple[ReplicateSummary, TrialRecord]]) -> str:
    at_end = sum(trial.measurements[-1].validation_loss == trial.score for _, trial in won)
    where = "had their lowest validation loss at their last evaluation"
    if at_end == len(won):
        return f"All {len(won)} winners {where}."
    return f"{at_end} of {len(won)} winners {where}; the others had it earlier."


def _curve_table(won: list[tuple[ReplicateSummary, TrialRecord]]) -> Table:
    return table_of(
        "Validation loss of each winner at its evaluations, in nats.",
        won,
        (SIZE_COLUMN, lambda w: count(w[0].size)),
        (ARM_COLUMN, lambda w: arm_label(w[0].arm)),
        numeric("Replicate", lambda w: str(w[0].replicate)),
        (Column("Step: validation loss", wide=True), lambda w: _told(w[1])),
    )


def _told(trial: TrialRecord) -> str:
    return ", ".join(f"{m.step:,}: {loss(m.validation_loss)}" for m in trial.measurements)


def _lowest(means: list[Row], split: str) -> str:
    best = min(means, key=lambda row: row["value"])
    return (
        f"The lowest mean {split} loss, {best['value']:.3f} nats, is {best['arm']}'s at "
        f"{best['size']:,} examples."
    )


def _curve_panel(
    summary: StudySummary, size: int, rows: list[Row], extent: list[float], width: int
) -> Any:
    colour, shape, dash = encodings(summary)
    return (
        alt.Chart(inline(rows), title=f"{size:,} examples")
        .mark_line(strokeWidth=1.7, point={"size": 22, "filled": True})
        .encode(
            x=alt.X("step:Q", title="optimizer step", axis=alt.Axis(grid=False, tickCount=4)),
            y=alt.Y(
                "value:Q",
                title="validation loss (nats)",
                scale=alt.Scale(domain=extent, zero=False, nice=True, padding=6),
            ),
            color=colour,
            strokeDash=dash,
            shape=shape,
            detail="line:N",
        )
        .properties(width=width, height=170)
    )


def _curve(trial: TrialRecord, start: float | None) -> list[Row]:
    arm, line = trial.spec.arm, trial.spec.trial_id
    points = [(m.step, m.validation_loss) for m in trial.measurements]
    if start is not None:
        points.insert(0, (0, start))
    return [
        {"arm": arm_label(arm), "line": line, "step": step, "value": value}
        for step, value in points
    ]


def _known(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)
