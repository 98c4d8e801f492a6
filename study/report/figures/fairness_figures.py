"""Figures on how well each arm was tuned: best of k against cost, and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from study.analysis import StudySummary, counted
from study.analysis.cells.best_of_k import BestOfK
from study.analysis.learning_rates import LearningRates
from study.basics.text_format import capital
from study.protocol.records import base_name
from study.report.base import (
    ARM_COLUMN,
    MISSING,
    SIZE_COLUMN,
    Figure,
    Table,
    between,
    count,
    loss,
    numeric,
    seconds,
    table_of,
)
from study.report.figures.figures import (
    HALF_WIDTH,
    INK,
    MUTED,
    WIDTH,
    Row,
    encodings,
    inline,
    make_figure,
)
from study.strategies import STRATEGIES, arm_label

_MAX_PANELS = 4
_PANEL_HEIGHT = 170
_RATES_HEIGHT = 135


def draw_best_of_k(summary: StudySummary, curves: Sequence[BestOfK]) -> Figure | None:
    """Expected best loss of k trials over their device-seconds, a panel per size (of many: the
    smallest, the asked one, the middle and the largest); None without a finished search."""
    if not curves:
        return None
    sizes = _shown(sorted({c.size for c in curves}), summary.config.decision.dataset_size)
    shown = [c for c in curves if c.size in sizes]
    told = "; ".join(
        f"{arm_label(c.arm)} at {c.size:,}: from {loss(c.losses[0])} with one trial to "
        f"{loss(c.losses[-1])} with {c.trials} in {seconds(c.device_seconds[-1])} device-seconds"
        for c in shown
    )
    return make_figure(
        "best-of-k",
        _best_panels(summary, sizes, shown),
        f"Expected lowest validation loss over the device-seconds of the trials tried. {told}.",
        "Expected lowest validation loss of 1, 2, 3, ... search trials, mean over replicates, over "
        "the device-seconds that so many trials took. A line that has gone flat says that more "
        f"trials would hardly help. No trial counts as more than the "
        f"{base_name(summary.config.task, summary.base)}'s loss.",
        _search_was_long_enough(summary, curves),
        _best_table(shown),
    )


def draw_learning_rates(summary: StudySummary, rates: Sequence[LearningRates]) -> Figure | None:
    """Excess loss of every complete search trial over its learning rate, a panel per arm; None
    where no arm searched learning rates."""
    if not rates:
        return None
    tried = [
        x
        for r in rates
        for x in (r.bounds.low, r.bounds.high, *(t.learning_rate for t in r.trials))
    ]
    domain = [min(tried) / 1.08, max(tried) * 1.08]
    top = max((t.excess for r in rates for t in r.trials), default=0.0)
    panels = [_rates_panel(r, domain, top) for r in rates]
    told = " ".join(
        f"{arm_label(r.arm)}: {counted(len(r.trials), 'trial')}, {counted(r.winners, 'winner')}, "
        f"{r.winners_low} of them in the lowest and {r.winners_high} in the highest tenth of "
        f"{rate(r.bounds.low)} to {rate(r.bounds.high)}."
        for r in rates
    )
    return make_figure(
        "learning-rates",
        alt.vconcat(*panels, spacing=14),
        f"Validation loss above the replicate's best, over the learning rate. {told}",
        "Validation loss of every complete search trial above the best one of its replicate "
        "(square-root scale). Ringed marks on the zero line: winners. Vertical lines: ends of the "
        "searched range; grey: its outer tenths on the log scale. Winners there ask for a wider "
        "range.",
        " ".join(map(where_winners_lie, rates)),
        _rates_table(rates),
    )


def rate(value: float) -> str:
    """A learning rate, e.g. ``2.0e-05``."""
    return f"{value:.1e}"


def where_winners_lie(rates: LearningRates) -> str:
    """E.g. ``Of 12 winners of LIFT, 7 lie in the highest tenth of the searched learning rates.``"""
    label = arm_label(rates.arm)
    if not rates.winners:
        return f"No search of {label} has a winner yet."
    ends = [("lowest", rates.winners_low), ("highest", rates.winners_high)]
    there = [f"{number} lie in the {end}" for end, number in ends if number]
    if not there:
        return f"No winner of {label} lies at an end of the searched learning rates."
    return (
        f"Of {counted(rates.winners, f'winner of {label}', f'winners of {label}')}, "
        f"{' and '.join(there)} tenth of the searched learning rates."
    )


def _shown(sizes: list[int], asked: int | None) -> list[int]:
    if len(sizes) <= _MAX_PANELS:
        return sizes
    kept = {sizes[0], sizes[len(sizes) // 2], sizes[-1]}
    return sorted(kept | ({asked} if asked in sizes and asked is not None else set()))


def _best_panels(summary: StudySummary, sizes: Sequence[int], curves: Sequence[BestOfK]) -> Any:
    rows: list[Row] = [
        {
            "arm": arm_label(c.arm),
            "size": f"{c.size:,} examples",
            "seconds": spent,
            "value": value,
        }
        for c in curves
        for spent, value in zip(c.device_seconds, c.losses, strict=True)
    ]
    colour, shape, dash = encodings(summary)
    base = alt.Chart().encode(
        x=alt.X(
            "seconds:Q",
            title="device-seconds of search",
            scale=alt.Scale(zero=True, nice=True),
            axis=alt.Axis(grid=False, tickCount=4, format=",~r"),
        ),
        y=alt.Y(
            "value:Q",
            title="expected best loss (nats)",
            scale=alt.Scale(zero=False, nice=True, padding=6),
            axis=alt.Axis(tickCount=5, labelFlush=True),
        ),
        color=colour,
    )
    lines = alt.layer(
        base.mark_line(strokeWidth=2).encode(strokeDash=dash),
        base.mark_point(filled=True, size=44, opacity=1).encode(shape=shape),
        data=inline(rows),
    ).properties(width=WIDTH if len(sizes) == 1 else HALF_WIDTH, height=_PANEL_HEIGHT)
    header = alt.Header(
        title=None, labelAnchor="start", labelFontSize=13, labelFontWeight=600, labelColor=INK
    )
    facets = alt.Facet("size:N", sort=[f"{n:,} examples" for n in sizes], header=header)
    # Flush: rows and columns line up whatever their axes' labels take, which `spacing` makes up.
    return lines.facet(
        facets, columns=2, bounds="flush", spacing={"row": 82, "column": 75}
    ).resolve_scale(x="independent", y="independent")


def _search_was_long_enough(summary: StudySummary, curves: Sequence[BestOfK]) -> str:
    """What the second half of the trials brought in each arm, where it brought most."""
    rho = summary.config.decision.rho
    gains = []
    for arm in summary.arms:
        known = [(c.last_doubling, c) for c in curves if c.arm == arm]
        doubled = [(gain, c) for gain, c in known if gain is not None]
        if doubled:
            gains.append(max(doubled, key=lambda entry: entry[0]))
    if not gains:
        return "A search of one trial tunes nothing."
    told = " and ".join(
        f"{gain:.3f} nats in {arm_label(c.arm)} (at {c.size:,} examples)" for gain, c in gains
    )
    trials = f"from {gains[0][1].trials // 2} to {gains[0][1].trials} trials"
    first = f"Going {trials} lowered the best loss by at most {told}"
    short = [arm_label(c.arm) for gain, c in gains if gain > rho]
    if not short:
        return f"{first}: less than the {rho:g} that matter to you, so the searches were long."
    return (
        f"{first}. {capital(' and '.join(short))} still gained more than the {rho:g} that matter "
        "to you: with more trials (`search.trials`) the best loss may fall further."
    )


def _best_table(curves: Sequence[BestOfK]) -> Table:
    return table_of(
        "Expected lowest validation loss of so many search trials.",
        [(c, k) for c in curves for k in _doublings(c.trials)],
        (SIZE_COLUMN, lambda p: count(p[0].size)),
        (ARM_COLUMN, lambda p: arm_label(p[0].arm)),
        numeric("Trials", lambda p: count(p[1])),
        numeric("Device-seconds", lambda p: seconds(p[0].device_seconds[p[1] - 1])),
        numeric("Expected best loss", lambda p: loss(p[0].losses[p[1] - 1])),
        numeric("Range of replicates", lambda p: between(p[0].low[p[1] - 1], p[0].high[p[1] - 1])),
    )


def _doublings(last: int) -> list[int]:
    """1, 2, 4, ... and `last`."""
    return sorted({2**i for i in range(last.bit_length()) if 2**i <= last} | {last})


def _rates_panel(rates: LearningRates, domain: list[float], top: float) -> Any:
    x = alt.X(
        "rate:Q",
        title="learning rate",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(values=_ticks(*domain), format=".0e", grid=False, labelOverlap=True),
    )
    y = alt.Y(
        "excess:Q",
        title="nats above best",
        scale=alt.Scale(type="sqrt", domain=[0, top or 1.0], nice=True),
        axis=alt.Axis(tickCount=4),
    )
    colour, shape = STRATEGIES[rates.arm].colour, STRATEGIES[rates.arm].shape
    points = [
        {"rate": t.learning_rate, "excess": t.excess, "winner": t.winner} for t in rates.trials
    ]
    tenths = alt.Chart(
        inline(
            [
                {"rate": rates.bounds.low, "end": rates.bounds.low_end},
                {"rate": rates.bounds.high_end, "end": rates.bounds.high},
            ]
        ),
        title=arm_label(rates.arm),
    )
    bounds = alt.Chart(inline([{"rate": rates.bounds.low}, {"rate": rates.bounds.high}]))
    losers = alt.Chart(inline([p for p in points if not p["winner"]]))
    winners = alt.Chart(inline([p for p in points if p["winner"]]))
    return alt.layer(
        tenths.mark_rect(color=MUTED, opacity=0.16).encode(x=x, x2="end:Q"),
        bounds.mark_rule(color=MUTED, strokeWidth=1.3).encode(x=x),
        losers.mark_point(filled=True, size=26, opacity=0.5, color=colour, shape=shape).encode(
            x=x, y=y
        ),
        winners.mark_point(
            filled=True,
            size=80,
            opacity=0.85,
            color=colour,
            shape=shape,
            stroke=INK,
            strokeWidth=1.4,
        ).encode(x=x, y=y),
    ).properties(width=WIDTH, height=_RATES_HEIGHT)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _rates_table(rates: Iterable[LearningRates]) -> Table:
    return table_of(
        "Learning rates searched, and where the winners lie.",
        rates,
        (ARM_COLUMN, lambda r: arm_label(r.arm)),
        numeric("Searched", lambda r: _range([r.bounds.low, r.bounds.high])),
        numeric("Complete trials", lambda r: count(len(r.trials))),
        numeric("Winners", lambda r: count(r.winners)),
        numeric("In the lowest tenth", lambda r: count(r.winners_low)),
        numeric("In the highest tenth", lambda r: count(r.winners_high)),
        numeric(
            "Winners' range", lambda r: _range([t.learning_rate for t in r.trials if t.winner])
        ),
    )


def _range(rates: Sequence[float]) -> str:
    return f"{rate(min(rates))} to {rate(max(rates))}" if rates else MISSING
