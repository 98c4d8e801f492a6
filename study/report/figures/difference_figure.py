"""The figure that the comparison is about: the arms' difference over dataset size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from study.analysis import Curve, Pair, StudySummary, crossover_sentence
from study.analysis.curve.fit import Intervals
from study.basics.text_format import capital
from study.report.base import SIZE_COLUMN, Figure, Table, between, count, loss, numeric, table_of
from study.report.figures.figures import (
    HEIGHT,
    INK,
    MUTED,
    WIDTH,
    Row,
    inline,
    make_figure,
    size_axis,
)

CURVE = "#5b4a8a"
"""Neither arm's colour: the difference belongs to both."""
_POINTS = 60
"""Sizes at which the curve is drawn."""


def draw_difference(summary: StudySummary, asked: Sequence[int]) -> Figure | None:
    """Replicates, curve, interval and band, the strip of differences that do not matter, where the
    curve crosses zero, and the asked sizes; None without a curve over at least two sizes."""
    curve, pair = summary.curve, summary.pair
    if curve is None or len(np.unique(curve.paired.sizes)) < 2:
        return None
    rho = summary.config.decision.rho
    tested = np.unique(curve.paired.sizes)
    sizes = [int(n) for n in tested]
    x = size_axis(sizes, beyond=asked)
    strip = alt.Chart(inline([{"low": -rho, "high": rho}]))
    zero = alt.Chart(inline([{"value": 0.0}]))
    line = alt.Chart(inline(_line(curve, tested[0], tested[-1])))
    points = alt.Chart(inline(_replicates(curve)))
    layers: list[Any] = [
        strip.mark_rect(color=MUTED, opacity=0.14).encode(y="low:Q", y2="high:Q"),
        line.mark_area(color=CURVE, opacity=0.13).encode(x=x, y="band_low:Q", y2="band_high:Q"),
        line.mark_area(color=CURVE, opacity=0.24).encode(x=x, y="low:Q", y2="high:Q"),
        zero.mark_rule(color=INK, strokeWidth=1.1).encode(y="value:Q"),
        line.mark_line(color=CURVE, strokeWidth=2.2).encode(x=x, y="value:Q"),
        points.mark_point(filled=True, size=34, opacity=0.75, color=CURVE).encode(
            x=x, y=alt.Y("value:Q", title=f"{pair.difference} (nats)")
        ),
    ]
    layers += _beyond(curve, sizes, asked, x) + _crossing(curve, x)
    layers += _sides(pair) + _asked(asked, x)
    at = curve.at(tested)
    told = "; ".join(
        f"{loss(d, sign=True)} ({between(low, high, sign=True)}) at {n:,.0f}"
        for n, d, low, high in zip(
            tested.tolist(), at.difference.tolist(), at.low.tolist(), at.high.tolist(), strict=True
        )
    )
    return make_figure(
        "difference",
        alt.layer(*layers).properties(width=WIDTH, height=HEIGHT),
        f"Mean test loss of {' minus that of '.join(pair.labels)}, with 95 % intervals: {told}.",
        _caption(curve, pair, rho, asked),
        crossover_sentence(summary),
        _table(curve, pair, sorted({*sizes, *asked})),
    )


def _caption(curve: Curve, pair: Pair, rho: float, asked: Sequence[int]) -> str:
    text = (
        f"Test loss of {' minus that of '.join(pair.labels)}. Marks: one replicate each. Dark "
        "area: 95 % interval at a size; light area: 95 % band for all sizes at once. Grey strip: "
        f"differences of less than {rho:g} nats, which do not matter to you (decision.rho)."
    )
    if curve.crossover().kind == "crossover":
        text += " Thick bar on the zero line: where the arms' losses cross."
    if asked:
        plural = len(asked) > 1
        text += f" Dashed line{'s' if plural else ''}: the size{'s' if plural else ''} asked about"
        text += "; dotted curve: extrapolated." if _is_beyond(curve, asked) else "."
    return text


def _is_beyond(curve: Curve, asked: Sequence[int]) -> bool:
    sizes = curve.paired.sizes
    return any(not sizes.min() <= n <= sizes.max() for n in asked)


def _table(curve: Curve, pair: Pair, sizes: Sequence[int]) -> Table:
    at, band, paired = curve.at(sizes), curve.band(sizes), curve.paired

    def ends(of: Intervals, k: int) -> str:
        return between(float(of.low[k]), float(of.high[k]), sign=True)

    def replicates(n: int) -> str:
        there = paired.differences[paired.sizes == n]
        return ", ".join(loss(float(d), sign=True) for d in there)

    return table_of(
        "The curve at the tested and the asked sizes, in nats.",
        range(len(sizes)),
        (SIZE_COLUMN, lambda k: count(sizes[k])),
        numeric(capital(pair.difference), lambda k: loss(float(at.difference[k]), sign=True)),
        numeric("95 % interval", lambda k: ends(at, k)),
        numeric("95 % band", lambda k: ends(band, k)),
        numeric("Replicates", lambda k: replicates(sizes[k])),
    )


def _line(curve: Curve, low: float, high: float) -> list[Row]:
    sizes = np.geomspace(low, high, _POINTS)
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


def _beyond(curve: Curve, tested: Sequence[int], asked: Sequence[int], x: alt.X) -> list[Any]:
    """The curve, dotted, out to asked sizes that were not tested."""
    ends = ((min([*asked, tested[0]]), tested[0]), (tested[-1], max([*asked, tested[-1]])))
    made = []
    for low, high in ends:
        if low < high:
            line = alt.Chart(inline(_line(curve, low, high)))
            made.append(
                line.mark_area(color=CURVE, opacity=0.1).encode(x=x, y="low:Q", y2="high:Q")
            )
            made.append(line.mark_line(color=CURVE, strokeDash=[2, 4]).encode(x=x, y="value:Q"))
    return made


def _crossing(curve: Curve, x: alt.X) -> list[Any]:
    found = curve.crossover()
    if found.low is None or found.high is None:
        return []
    bar = alt.Chart(inline([{"size": found.low, "to": found.high, "value": 0.0}]))
    return [
        bar.mark_rule(color=INK, strokeWidth=6, opacity=0.85).encode(x=x, x2="to:Q", y="value:Q")
    ]


def _replicates(curve: Curve) -> list[Row]:
    paired = curve.paired
    return [
        {"size": float(size), "value": float(value)}
        for size, value in zip(paired.sizes, paired.differences, strict=True)
    ]


def _asked(asked: Sequence[int], x: alt.X) -> list[Any]:
    if not asked:
        return []
    marks = alt.Chart(inline([{"size": n, "label": f"{n:,}"} for n in asked]))
    label = marks.mark_text(baseline="bottom", dy=-4, color=INK, fontSize=12)
    return [
        marks.mark_rule(color=INK, strokeDash=[5, 3]).encode(x=x),
        label.encode(x=x, y=alt.value(0), text="label:N"),
    ]


def _sides(pair: Pair) -> list[Any]:
    """Whose is the upper side, whose the lower; in pixels from the top."""
    reference, challenger = pair.labels
    sides = ((f"{challenger} is better", 10), (f"{reference} is better", HEIGHT - 10))
    return [
        alt.Chart(inline([{"label": label}]))
        .mark_text(align="left", baseline="middle", color=MUTED, fontSize=12)
        .encode(x=alt.value(6), y=alt.value(y), text="label:N")
        for label, y in sides
    ]
