"""Any dataset size, answered from the grid of verdicts that the analysis wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from study.analysis.verdict.records import Verdict
from study.basics.text_format import percent
from study.report.base import (
    SIZE_COLUMN,
    Column,
    Table,
    VerdictCard,
    count,
    numeric,
    or_dash,
    table_of,
)
from study.report.card import verdict_card
from study.report.verdict import Setting, headline, label


def case_cards(setting: Setting) -> tuple[VerdictCard, ...]:
    """A card per size of the grid."""
    return tuple(verdict_card(verdict, setting) for verdict in setting.grid)


def case_table(setting: Setting, asked: Sequence[Verdict]) -> Table | None:
    """The verdicts at the tested and the asked sizes, for readers without JavaScript; None without
    a verdict."""
    known = {v.dataset_size: v for v in (*setting.grid, *asked)}
    chosen = {_nearest(known, n) for n in setting.sizes} if known else set()
    chosen |= {v.dataset_size for v in asked}
    if not chosen:
        return None
    return table_of(
        "The verdict at the tested and the asked dataset sizes.",
        [known[n] for n in sorted(chosen)],
        (SIZE_COLUMN, lambda v: count(v.dataset_size)),
        (Column("Answer"), label),
        numeric("Confidence", lambda v: or_dash(v.confidence, percent)),
        (Column("Verdict", wide=True), lambda v: headline(v, setting)),
    )


def lookup(cards: Sequence[VerdictCard], rendered: Sequence[str]) -> str:
    """JSON for the page's script, which only looks up: each answer with the largest size that it
    is the nearest one of, on the log scale.

    Args:
        rendered: each card as HTML.
    """
    sizes = [card.dataset_size for card in cards]
    ends = [math.floor(math.sqrt(a * b)) for a, b in pairwise(sizes)]
    data: dict[str, Any] = {
        "low": sizes[0],
        "high": sizes[-1],
        "outside": f"This study can answer for {sizes[0]:,} to {sizes[-1]:,} examples. Beyond "
        "that its curve says nothing: test a size near yours.",
        "answers": [
            {
                "until": end,
                "about": f"Nearest size with an answer: {size:,} examples.",
                "card": html,
            }
            for size, end, html in zip(sizes, [*ends, sizes[-1]], rendered, strict=True)
        ],
    }
    # Inside a script element only these could end it, or start a comment.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _nearest(known: dict[int, Verdict], size: int) -> int:
    return min(known, key=lambda n: abs(math.log(n / size)))
