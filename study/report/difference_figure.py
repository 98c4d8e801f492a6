"""The figure that the comparison is about: full minus LIFT over dataset size."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from study.analysis import Curve, StudySummary
from study.report.base import Figure, loss
from study.report.figures import (
    HEIGHT,
    INK,
    MUTED,
    WIDTH,
    Row,
    inline,
    make_figure,
    size_axis,
    size_range,
)

_CURVE = "#5b4a8a"
"""Neither arm's colour: the difference belongs to both."""
_POINTS = 60
"""Sizes at which the curve is drawn."""


def draw_difference(summary: StudySummary) -> Figure | None:
    """Replicates, curve, interval and band, the strip of differences that do not matter, and the
    asked size; None without a curve over at least two sizes."""
    curve = summary.curve
    if curve is None or len(np.unique(curve.paired.sizes)) < 2:
        return None
    rho = summary.config.decision.rho
    asked = summary.config.decision.dataset_size
    tested = np.unique(curve.paired.sizes)
    sizes = [int(n) for n in tested]
    x = size_axis(sizes)
    strip = alt.Chart(inline([{"low": -rho, "high": rho}]))
    zero = alt.Chart(inline([{"value": 0.0}]))
    line = alt.Chart(inline(_line(curve, tested)))
    points = alt.Chart(inline(_replicates(curve)))
    layers: list[Any] = [
        strip.mark_rect(color=MUTED, opacity=0.14).encode(y="low:Q", y2="high:Q"),
        line.mark_area(color=_CURVE, opacity=0.13).encode(x=x, y="band_low:Q", y2="band_high:Q"),
        line.mark_area(color=_CURVE, opacity=0.24).encode(x=x, y="low:Q", y2="high:Q"),
        zero.mark_rule(color=INK, strokeWidth=1.1).encode(y="value:Q"),
        line.mark_line(color=_CURVE, strokeWidth=2.2).encode(x=x, y="value:Q"),
        points.mark_point(filled=True, size=34, opacity=0.75, color=_CURVE).encode(
            x=x, y=alt.Y("value:Q", title="full minus LIFT (nats)")
        ),
    ]
    layers += _sides()
    left, right = size_range(sizes)
    if asked is not None and left <= asked <= right:
        mark = alt.Chart(inline([{"size": asked}]))
        layers.append(mark.mark_rule(color=INK, strokeDash=[5, 3]).encode(x=x))
    at = curve.at(tested)
    told = "; ".join(
        f"{loss(d, sign=True)} ({loss(low, sign=True)} to {loss(high, sign=True)}) at {n:,.0f}"
        for n, d, low, high in zip(
            tested.tolist(), at.difference.tolist(), at.low.tolist(), at.high.tolist(), strict=True
        )
    )
    return make_figure(
        "difference",
        alt.layer(*layers).properties(width=WIDTH, height=HEIGHT),
        f"Mean test loss of full minus that of LIFT, with 95 % intervals: {told}.",
        "Test loss of full minus that of LIFT. Marks: one replicate each. Dark area: 95 % "
        "interval at a size; light area: 95 % band for all sizes at once. Grey strip: differences "
        f"of less than {rho:g} nats, which do not matter to you (decision.rho)."
        + ("" if asked is None else " Dashed line: the size you asked about."),
    )


def _line(curve: Curve, tested: Any) -> list[Row]:
    sizes = np.geomspace(tested[0], tested[-1], _POINTS)
    at, band = curve.at(sizes), curve.band(sizes)
    columns = {
        "size": sizes,
        "value": at.difference,
        "low": at.low,
        "high": at.high,
        "band_low": band.low,
        "band_high": band.high,
    }
    return [
        dict(zip(columns, map(float, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _replicates(curve: Curve) -> list[Row]:
    paired = curve.paired
    return [
        {"size": float(size), "value": float(value)}
        for size, value in zip(paired.sizes, paired.differences, strict=True)
    ]


def _sides() -> list[Any]:
    """Whose is the upper side, whose the lower; in pixels from the top."""
    sides = (("LIFT is better", 10), ("full is better", HEIGHT - 10))
    return [
        alt.Chart(inline([{"label": label}]))
        .mark_text(align="right", baseline="middle", color=MUTED, fontSize=12)
        .encode(x=alt.value(WIDTH - 6), y=alt.value(y), text="label:N")
        for label, y in sides
    ]
