"""The figures, as SVG: Altair describes them, vl-convert draws them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import vl_convert

from study.analysis import CellSummary, StudySummary, arm_label
from study.records import TrialRecord
from study.report.base import Figure, loss

INK, MUTED, GRID, PAPER = "#1c2733", "#5d6977", "#e2e6eb", "#fffffe"
# Blue and vermilion stay apart in every common colour blindness; shape and dash say it again.
ARM_COLOURS = {"full": "#0b62a4", "lift": "#c8500a"}
_SHAPES = {"full": "circle", "lift": "triangle-up"}
_DASHES = {"full": [1, 0], "lift": [6, 3]}
_DODGE = {"full": 0.965, "lift": 1.035}
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
WIDTH, HEIGHT = 560, 270
_HALF_WIDTH = 245

Row = dict[str, Any]


def draw_loss(summary: StudySummary) -> Figure | None:
    """Every run's loss and the means by dataset size; None without any loss."""
    split = summary.split
    rows: list[Row] = []
    for cell in summary.cells:
        for replicate in cell.replicates:
            found = replicate.test_losses if split == "test" else _known(replicate.search_score)
            rows += [_point(cell, value) for value in found]
    means = [_point(cell, mean.mean) for cell in summary.cells if (mean := cell.loss(split))]
    if not means:
        return None
    base = summary.base_loss(split)
    title = f"{split} loss (nats)"
    chart = _by_size(summary, rows, means, title, base, f"base model {loss(base)}", WIDTH)
    runs = "confirm run" if split == "test" else "replicate's winner"
    caption = f"Small marks: one {runs} each. Large marks and lines: means over replicates."
    if base is not None:
        caption += " Dotted line: the untouched base model."
    return make_figure("loss", chart, f"Mean {split} loss by dataset size. {_tell(means)}", caption)


def draw_forgetting(summary: StudySummary) -> Figure | None:
    """Retention rise by dataset size; None when it was not measured."""
    rows = [
        _point(cell, rise)
        for cell in summary.cells
        for replicate in cell.replicates
        for rise in replicate.retention_rises
    ]
    means = [_point(c, c.retention_rise.mean) for c in summary.cells if c.retention_rise]
    if not means:
        return None
    title = "rise of retention loss (nats)"
    chart = _by_size(summary, rows, means, title, 0.0, "no forgetting", WIDTH)
    return make_figure(
        "forgetting",
        chart,
        f"Mean rise of the loss on general text by dataset size. {_tell(means)}",
        "Loss on held-out general text, minus the base model's. Higher means more forgotten.",
    )


def draw_cost(summary: StudySummary) -> Figure | None:
    """Device-seconds of one cold run and peak memory by dataset size; None without such a run."""
    spent = [
        _point(c, c.cost.run_cold_device_seconds)
        for c in summary.cells
        if c.cost.run_cold_device_seconds is not None
    ]
    peaks = [
        _point(c, c.cost.peak_memory_bytes / 2**30)
        for c in summary.cells
        if c.cost.peak_memory_bytes is not None
    ]
    if not spent or not peaks:
        return None
    left = _by_size(summary, [], spent, "device-seconds per run", None, "", _HALF_WIDTH, zero=True)
    right = _by_size(summary, [], peaks, "peak memory (GiB)", None, "", _HALF_WIDTH, zero=True)
    return make_figure(
        "cost",
        alt.hconcat(left, right, spacing=28),
        f"Device-seconds per cold run by dataset size. {_tell(spent, '.1f')} "
        f"Peak memory in GiB. {_tell(peaks, '.2f')}",
        "Left: mean device-seconds of one run trained to its last step, with an empty prefix cache "
        "at its start. "
        "Right: the largest memory of any run, on its largest rank.",
    )


def draw_curves(summary: StudySummary) -> Figure | None:
    """Validation loss over training of every replicate's winner, one panel per dataset size."""
    start = summary.base_loss("validation") if summary.config.task == "causal-lm" else None
    panels: dict[int, list[Row]] = {}
    for cell in summary.cells:
        for replicate in cell.replicates:
            if replicate.winner is not None:
                panels.setdefault(cell.size, []).extend(_curve(replicate.winner, start))
    if not panels:
        return None
    sizes = sorted(panels)
    losses = [row["value"] for rows in panels.values() for row in rows]
    extent = [min(losses), max(losses)]
    wide = WIDTH if len(sizes) == 1 else _HALF_WIDTH
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
    )


def _by_size(
    summary: StudySummary,
    rows: list[Row],
    means: list[Row],
    title: str,
    rule: float | None,
    rule_label: str,
    width: int,
    zero: bool = False,
) -> Any:
    """Values over dataset size on a log axis: `rows` as small marks, `means` joined by lines."""
    sizes = sorted(summary.sizes)
    x = size_axis(sizes)
    y = alt.Y(
        "value:Q", title=title, scale=alt.Scale(zero=zero, nice=True, padding=0 if zero else 6)
    )
    colour, shape, dash = _encodings(summary)
    layers: list[Any] = []
    if rule is not None:
        layers += _rule(rule, rule_label, size_range(sizes)[0])
    joined = alt.Chart(inline(means)).encode(x=x, y=y, color=colour)
    layers.append(joined.mark_line(strokeWidth=2).encode(strokeDash=dash))
    dodged = [row | {"size": row["size"] * _DODGE.get(row["key"], 1.0)} for row in rows]
    if dodged:
        points = alt.Chart(inline(dodged)).mark_point(filled=True, size=26, opacity=0.45)
        layers.append(points.encode(x=x, y=y, color=colour, shape=shape))
    layers.append(joined.mark_point(filled=True, size=95, opacity=1).encode(shape=shape))
    return alt.layer(*layers).properties(width=width, height=HEIGHT)


def size_axis(sizes: Sequence[int]) -> alt.X:
    """Dataset sizes, ascending, on a log axis with room at both ends."""
    return alt.X(
        "size:Q",
        title="training examples",
        scale=alt.Scale(type="log", base=2, domain=size_range(sizes), nice=False),
        axis=alt.Axis(values=list(sizes), format=",d", grid=False, labelOverlap=True),
    )


def size_range(sizes: Sequence[int]) -> list[float]:
    """The ends of `size_axis`."""
    return [sizes[0] / 1.25, sizes[-1] * 1.25]


def _rule(value: float, label: str, left: float) -> list[Any]:
    row = alt.Chart(inline([{"value": value, "size": left, "label": label}]))
    line = row.mark_rule(strokeDash=[2, 3], color=MUTED, strokeWidth=1.3).encode(y="value:Q")
    text = row.mark_text(align="left", dx=5, dy=-7, color=MUTED, fontSize=12)
    return [line, text.encode(x="size:Q", y="value:Q", text="label:N")]


def _curve_panel(
    summary: StudySummary, size: int, rows: list[Row], extent: list[float], width: int
) -> Any:
    colour, shape, dash = _encodings(summary)
    return (
        alt.Chart(inline(rows), title=f"{size:,} examples")
        .mark_line(strokeWidth=1.7, point={"size": 22, "filled": True}, opacity=0.9)
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


def _encodings(summary: StudySummary) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    """Colour, shape and dash by arm, merged into one legend; no legend for a single arm."""
    labels = [arm_label(arm) for arm in summary.arms]

    def scale(values: dict[str, Any]) -> alt.Scale:
        return alt.Scale(domain=labels, range=[values[arm] for arm in summary.arms])

    legend = (
        alt.Legend(orient="top", title=None, symbolSize=90, symbolOpacity=1, symbolStrokeWidth=0)
        if len(labels) > 1
        else None
    )
    return (
        alt.Color("arm:N", scale=scale(ARM_COLOURS), legend=legend),
        alt.Shape("arm:N", scale=scale(_SHAPES), legend=legend),
        alt.StrokeDash("arm:N", scale=scale(_DASHES), legend=None),
    )


def make_figure(name: str, chart: Any, alt_text: str, caption: str) -> Figure:
    """A chart in this report's style, drawn."""
    axis = {
        "labelColor": MUTED,
        "titleColor": INK,
        "gridColor": GRID,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "tickCount": 6,
    }
    styled = (
        chart.configure(font=_FONT, background=PAPER, padding=6)
        .configure_view(stroke=None)
        .configure_axis(**axis)
        .configure_legend(labelFontSize=13, labelColor=INK)
        .configure_title(fontSize=13, fontWeight=600, color=INK, anchor="start")
    )
    svg = vl_convert.vegalite_to_svg(styled.to_dict())
    # Several SVGs share one HTML page: ids such as `clip0` would collide.
    svg = re.sub(r'(\bid="|url\(#)', rf"\1{name}-", svg)
    return Figure(name, svg, alt_text, caption)


def _curve(trial: TrialRecord, start: float | None) -> list[Row]:
    arm, line = trial.spec.arm, trial.spec.trial_id
    points = [(m.step, m.validation_loss) for m in trial.measurements]
    if start is not None:
        points.insert(0, (0, start))
    return [
        {"arm": arm_label(arm), "line": line, "step": step, "value": value}
        for step, value in points
    ]


def _point(cell: CellSummary, value: float) -> Row:
    return {"arm": arm_label(cell.arm), "key": cell.arm, "size": cell.size, "value": value}


def _known(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)


def inline(rows: Sequence[Row]) -> alt.Data:
    """Rows as a chart's data."""
    return alt.Data(values=list(rows))


def _tell(points: Iterable[Row], form: str = ".3f") -> str:
    """The points in words: ``full: 4.310 at 64, 4.202 at 128. LIFT: ...``."""
    told: dict[str, list[str]] = {}
    for point in points:
        told.setdefault(point["arm"], []).append(f"{point['value']:{form}} at {point['size']:,}")
    return " ".join(f"{arm}: {', '.join(values)}." for arm, values in told.items())
