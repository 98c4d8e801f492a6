"""Reports: the analysis laid out as HTML and Markdown. Nothing is computed here."""

from __future__ import annotations

import os
from pathlib import Path

from study.analysis import (
    StudySummary,
    arm_label,
    caveats,
    crossover_sentence,
    found_sentences,
    summarise,
)
from study.report import cost, tables, text
from study.report.base import Contents, Figure, ReportPaths, Section, Table
from study.report.difference_figure import draw_difference
from study.report.figures import draw_cost, draw_curves, draw_forgetting, draw_loss
from study.report.html import render_html
from study.report.markdown import FIGURE_FOLDER, render_markdown
from study.results import StudyResults
from study.text_files import write_text

__all__ = ["ReportPaths", "report_contents", "write_report"]


def write_report(results: StudyResults, folder: str | os.PathLike[str]) -> ReportPaths:
    """Write ``report.html`` (self-contained), ``report.md`` and ``figures/*.svg`` into `folder`.

    Works for a study in any state. Files of an earlier report are replaced, each in one step.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    contents = report_contents(results)
    figures = [figure for section in contents.sections for figure in section.figures]
    drawn = tuple(folder / FIGURE_FOLDER / f"{figure.name}.svg" for figure in figures)
    for path, figure in zip(drawn, figures, strict=True):
        write_text(path, figure.svg)
    paths = ReportPaths(folder / "report.html", folder / "report.md", drawn)
    write_text(paths.markdown, render_markdown(contents))
    write_text(paths.html, render_html(contents))
    return paths


def report_contents(results: StudyResults) -> Contents:
    """Everything the report says, independent of its format."""
    summary = summarise(results)
    arms = " and ".join(map(arm_label, summary.arms))
    return Contents(
        title=results.config.name,
        subtitle=f"{arms} fine-tuning of {results.config.model.path}",
        banner=text.banner(summary),
        headline=found_sentences(summary),
        caveats=caveats(summary),
        tiles=text.tiles(summary, results),
        sections=_sections(results, summary),
        footer=text.footer(results),
    )


def _sections(results: StudyResults, summary: StudySummary) -> tuple[Section, ...]:
    test = summary.split == "test"
    differences = summary.differences if test else summary.validation_differences
    loss_tables = [tables.loss_table(summary)]
    if differences:
        loss_tables.append(tables.difference_table(differences))
    rows = tables.winners_table(summary)
    failures = tables.failures_table(results.trials)
    forgetting, crossing = draw_forgetting(summary), crossover_sentence(summary)
    sections = [
        text.compared_section(results),
        Section(
            "loss",
            "Loss by dataset size",
            figures=_drawn(draw_loss(summary)),
            tables=tuple(loss_tables),
        ),
        Section(
            "difference",
            "Which arm is better, by dataset size",
            paragraphs=(crossing,) if crossing else (),
            figures=_drawn(draw_difference(summary)),
        ),
        Section("curves", "Learning curves of the winners", figures=_drawn(draw_curves(summary))),
        Section(
            "cost",
            "Cost and memory",
            figures=_drawn(draw_cost(summary)),
            tables=(cost.cost_table(summary), cost.memory_table(summary)),
        ),
        cost.prefix_cache_section(summary),
        Section(
            "forgetting",
            "Forgetting",
            figures=_drawn(forgetting),
            tables=(tables.forgetting_table(summary),) if forgetting else (),
        ),
        Section(
            "winners",
            "Winning configurations",
            snippets=text.winning_snippets(summary),
            tables=_filled(rows),
        ),
        Section("failures", "Failures", tables=(failures,) if failures else ()),
        text.methods_section(results, summary),
        Section(
            "trials",
            "Every trial",
            folded=True,
            tables=_filled(tables.trials_table(results.trials, summary)),
        ),
    ]
    return tuple(s for s in sections if s.figures or s.tables or s.facts or s.paragraphs)


def _drawn(figure: Figure | None) -> tuple[Figure, ...]:
    return () if figure is None else (figure,)


def _filled(table: Table) -> tuple[Table, ...]:
    return (table,) if table.rows else ()
