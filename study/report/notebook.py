"""A study's report in a notebook: verdict, comparison and curves, together or one by one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from altair.utils.schemapi import debug_mode

from study.analysis import StudySummary
from study.analysis.summary import summarise
from study.protocol.results import StudyResults
from study.report.base import Figure, Table, VerdictCard
from study.report.card import verdict_card
from study.report.figures.difference_figure import draw_difference
from study.report.figures.loss_figures import draw_curves, draw_loss
from study.report.html import report_templates
from study.report.sweep import sweep_section
from study.report.tables import loss_tables
from study.report.text import banner
from study.report.verdict import setting_of


@dataclass(frozen=True)
class Part:
    """One part of a view: HTML where a notebook asks for it, plain text elsewhere.

    Attributes:
        title: its heading.
        cards, figures, tables: what it shows, in this order.
        note: what must be known beside it; stands first.
        text: the same in plain lines.
    """

    title: str
    text: str
    note: str = ""
    cards: tuple[VerdictCard, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()

    def _repr_html_(self) -> str:
        return _page("", [self])

    def __repr__(self) -> str:
        return self.text


class StudyView:
    """What a notebook shows of a study. Nothing is fetched and no script runs; every text is
    escaped.

    Args:
        results: a study in any state.
        dataset_sizes, memory_limit_gib: as in `study.report.write_report`.
    """

    def __init__(
        self,
        results: StudyResults,
        dataset_sizes: Sequence[int] = (),
        memory_limit_gib: float | None = None,
    ) -> None:
        self._results = results
        self._asked = dataset_sizes, memory_limit_gib

    @cached_property
    def _summary(self) -> StudySummary:
        return summarise(self._results, *self._asked)

    @cached_property
    def verdict(self) -> Part:
        """The answer for each dataset size that was asked about."""
        setting = setting_of(self._results, self._summary)
        cards = tuple(verdict_card(v, setting) for v in self._summary.verdicts)
        note, sweep = banner(self._summary), sweep_section(self._summary)
        if cards:
            text = "\n".join([*(card.sentence for card in cards), *([note] if note else [])])
            return Part("Verdict", text, note, cards=cards)
        told = sweep.paragraphs if sweep else ("This study compares nothing.",)
        tables = sweep.tables if sweep else ()
        text = "\n".join([*map(_plain, tables), *told, *([note] if note else [])])
        title = sweep.title if sweep else "Verdict"
        return Part(title, text, " ".join(filter(None, (note, *told))), tables=tables)

    @cached_property
    def comparison(self) -> Part:
        """Arms by dataset size: losses, their difference, and what stands behind them."""
        summary = self._summary
        tables = loss_tables(summary)
        with debug_mode(False):
            drawn = draw_difference(summary, [v.dataset_size for v in summary.verdicts])
            drawn = drawn or draw_loss(summary)
        figures = () if drawn is None else (drawn,)
        text = "\n\n".join(map(_plain, tables))
        return Part("Comparison", text, figures=figures, tables=tables)

    @cached_property
    def curves(self) -> Part:
        """Validation loss over training of every replicate's winner."""
        with debug_mode(False):
            drawn = draw_curves(self._summary)
        if drawn is None:
            none = "No replicate has a winner yet."
            return Part("Learning curves", none, none)
        table = "" if drawn.table is None else f"\n\n{_plain(drawn.table)}"
        return Part("Learning curves", f"{drawn.takeaway}{table}", figures=(drawn,))

    def _repr_html_(self) -> str:
        return _page(self._results.config.name, [self.verdict, self.comparison, self.curves])

    def __repr__(self) -> str:
        return f"{self._results.config.name}: {self.verdict!r}"


def _page(title: str, parts: Sequence[Part]) -> str:
    """An HTML fragment whose style reaches nothing outside it."""
    template = report_templates().get_template("notebook.html.j2")
    html = template.render(title=title, parts=parts, style=_style())
    # Several outputs share one page, where each id must be unique.
    mark = hashlib.sha256(html.encode()).hexdigest()[:8]
    return re.sub(r'(\bid="|aria-labelledby="|url\(#)', rf"\1s{mark}-", html)


def _style() -> str:
    """The report's style inside one element."""
    css = report_templates().get_template("report.css").render()
    css = re.sub(r"(?m)^(\s*)(?::root|body) \{", r"\1& {", css)
    own = "& { max-width: 62rem; padding: 1rem 1.5rem; }\nh2 { margin-top: 1.8rem; }"
    return f".finetune-study {{\n{css}\n{own}\n}}"


def _plain(table: Table) -> str:
    """A table in columns of text."""
    rows = [tuple(column.title for column in table.columns), *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        cells = (
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))
