"""The figure on which hyperparameters mattered in each arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from study.analysis.cells.importance import Importance
from study.report.base import ARM_COLUMN, Column, Figure, Table
from study.report.figures.figures import INK, inline, make_figure
from study.strategies import STRATEGIES, arm_label


def draw_importance(found: Sequence[Importance]) -> Figure | None:
    """Shares of importance, a panel per arm that has them; None where no arm has."""
    shown = [i for i in found if i.shares]
    if not shown:
        return None
    wide = 400 if len(shown) == 1 else 150
    charts = [_importance_panel(i, wide) for i in shown]
    told = " ".join(
        f"{arm_label(i.arm)}: {', '.join(f'{_plain(n)} {s:.0%}' for n, s in i.shares)}."
        for i in shown
    )
    rows = tuple((arm_label(i.arm), _plain(n), f"{s:.0%}") for i in shown for n, s in i.shares)
    return make_figure(
        "importance",
        alt.hconcat(*charts, spacing=24),
        f"Share of importance by hyperparameter. {told}",
        "How much each hyperparameter decides whether a trial is among the best third of an arm's "
        "(PED-ANOVA, over all sizes and replicates). Shares add up to 100 % in each arm.",
        " ".join(
            f"In {arm_label(i.arm)} the {_plain(i.shares[0][0])} mattered most "
            f"({i.shares[0][1]:.0%})."
            for i in shown
        ),
        Table(
            "Share of importance by hyperparameter.",
            (ARM_COLUMN, Column("Hyperparameter"), Column("Share", number=True)),
            rows,
        ),
    )


def _importance_panel(found: Importance, width: int) -> Any:
    rows = [{"name": _plain(n), "share": s, "told": f"{s:.0%}"} for n, s in found.shares]
    base = alt.Chart(inline(rows), title=arm_label(found.arm)).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=140, minExtent=112)),
        x=alt.X(
            "share:Q",
            title="share of importance",
            scale=alt.Scale(domain=[0, 1.12], nice=False),
            axis=alt.Axis(values=[0, 0.5, 1], format=".0%"),
        ),
    )
    return alt.layer(
        base.mark_bar(color=STRATEGIES[found.arm].colour, height=16),
        base.mark_text(align="left", dx=4, color=INK, fontSize=12).encode(text="told:N"),
    ).properties(width=width, height=alt.Step(26))


def _plain(name: str) -> str:
    return name.replace("_", " ")
