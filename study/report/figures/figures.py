"""The figures, as SVG: Altair describes them, vl-convert draws them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import vl_convert
from altair.utils import schemapi

from study.analysis import CellSummary, StudySummary
from study.report.base import ARM_COLUMN, SIZE_COLUMN, Column, Figure, Table, count
from study.strategies import STRATEGIES, arm_label

INK, MUTED, GRID, PAPER = "#1c2733", "#5d6977", "#e2e6eb", "#fffffe"
_APART = 0.07
"""By what share of a size the arms' small marks stand beside one another."""
# Browsers set the font a little wider than the room that the drawing was given for it.
_PADDING = {"left": 6, "top": 6, "right": 16, "bottom": 6}
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
_STYLE = {
    "font": _FONT,
    "background": PAPER,
    "padding": _PADDING,
    "aria": False,
    "view": {"stroke": None},
    "axis": {
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
    },
    "legend": {
        "labelFontSize": 13,
        "labelColor": INK,
        "titleFontWeight": "normal",
        "titleColor": INK,
    },
    "title": {"fontSize": 13, "fontWeight": 600, "color": INK, "anchor": "start"},
}
WIDTH, HEIGHT = 560, 270
HALF_WIDTH = 245

Row = dict[str, Any]


def by_size(
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
    colour, shape, dash = encodings(summary)
    layers: list[Any] = []
    if rule is not None:
        layers += _rule(rule, rule_label, size_range(sizes)[0])
    joined = alt.Chart(inline(means)).encode(x=x, y=y, color=colour)
    layers.append(joined.mark_line(strokeWidth=2).encode(strokeDash=dash))
    middle = (len(summary.arms) - 1) / 2
    dodge = {arm: 1 + _APART * (k - middle) for k, arm in enumerate(summary.arms)}
    dodged = [row | {"size": row["size"] * dodge[row["key"]]} for row in rows]
    if dodged:
        points = alt.Chart(inline(dodged)).mark_point(filled=True, size=26, opacity=0.45)
        layers.append(points.encode(x=x, y=y, color=colour, shape=shape))
    layers.append(joined.mark_point(filled=True, size=95, opacity=1).encode(shape=shape))
    return alt.layer(*layers).properties(width=width, height=HEIGHT)


def size_axis(sizes: Sequence[int], beyond: Sequence[int] = ()) -> alt.X:
    """Dataset sizes, ascending, on a log axis with room at both ends, and for those `beyond`."""
    return alt.X(
        "size:Q",
        title="training examples",
        scale=alt.Scale(type="log", base=2, domain=size_range([*sizes, *beyond]), nice=False),
        axis=alt.Axis(values=list(sizes), format=",d", grid=False, labelOverlap=True),
    )


def size_range(sizes: Sequence[int]) -> list[float]:
    """The ends of `size_axis`."""
    return [min(sizes) / 1.25, max(sizes) * 1.25]


def _rule(value: float, label: str, left: float) -> list[Any]:
    row = alt.Chart(inline([{"value": value, "size": left, "label": label}]))
    line = row.mark_rule(strokeDash=[2, 3], color=MUTED, strokeWidth=1.3).encode(y="value:Q")
    text = row.mark_text(align="left", dx=5, dy=-7, color=MUTED, fontSize=12)
    return [line, text.encode(x="size:Q", y="value:Q", text="label:N")]


def points_table(caption: str, title: str, points: Iterable[Row], form: str = ".3f") -> Table:
    """Values of cells as a figure's table."""
    return Table(
        caption,
        (SIZE_COLUMN, ARM_COLUMN, Column(title, number=True)),
        tuple((count(p["size"]), p["arm"], f"{p['value']:{form}}") for p in points),
    )


def encodings(summary: StudySummary) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    """Colour, shape and dash by arm, merged into one legend; no legend for a single arm."""
    drawn = [STRATEGIES[arm] for arm in summary.arms]
    labels = [strategy.label for strategy in drawn]

    def scale(values: Iterable[Any]) -> alt.Scale:
        return alt.Scale(domain=labels, range=list(values))

    legend = (
        alt.Legend(orient="top", title=None, symbolSize=90, symbolOpacity=1, symbolStrokeWidth=0)
        if len(labels) > 1
        else None
    )
    return (
        alt.Color("arm:N", scale=scale(s.colour for s in drawn), legend=legend),
        alt.Shape("arm:N", scale=scale(s.shape for s in drawn), legend=legend),
        alt.StrokeDash("arm:N", scale=scale(list(s.dash) for s in drawn), legend=None),
    )


def make_figure(
    name: str, chart: Any, alt_text: str, caption: str, takeaway: str, table: Table | None
) -> Figure:
    """A chart in this report's style, drawn. Marks get no labels of their own: `alt_text` and
    `table` say it all, and a label per mark would double the file."""
    spec = chart.to_dict(validate=schemapi.DEBUG_MODE)
    # Not by `chart.configure`: each such call copies the whole chart.
    spec["config"] = _STYLE
    svg = vl_convert.vegalite_to_svg(spec)
    # Several SVGs share one HTML page: ids such as `clip0` would collide.
    svg = re.sub(r'(\bid="|url\(#)', rf"\1{name}-", svg)
    return Figure(name, svg, alt_text, caption, takeaway, table)


def point(cell: CellSummary, value: float) -> Row:
    """One value of a cell, for `by_size`."""
    return {"arm": arm_label(cell.arm), "key": cell.arm, "size": cell.size, "value": value}


def inline(rows: Sequence[Row]) -> alt.Data:
    """Rows as a chart's data. As JSON text: Altair would check and copy every row at every step,
    which takes longer than drawing them."""
    return alt.Data(values=json.dumps(list(rows)), format=alt.DataFormat(type="json"))


def tell(points: Iterable[Row], form: str = ".3f") -> str:
    """The points in words: ``full: 4.310 at 64, 4.202 at 128. LIFT: ...``."""
    told: dict[str, list[str]] = {}
    for row in points:
        told.setdefault(row["arm"], []).append(f"{row['value']:{form}} at {row['size']:,}")
    return " ".join(f"{arm}: {', '.join(values)}." for arm, values in told.items())
