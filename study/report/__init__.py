"""Reports: the analysis laid out as HTML, Markdown and JSON.

Import what is named here, and `notebook`.
Nothing is computed here, and nothing is read but the results that are handed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from study.analysis import StudySummary
from study.analysis.summary import summarise
from study.basics.errors import UserError
from study.basics.text_files import write_bytes, write_text
from study.protocol.results import StudyResults
from study.report.base import Figure, ReportPaths, VerdictCard
from study.report.card import verdict_card
from study.report.contents import report_contents
from study.report.figures.png import to_png
from study.report.html import render_html
from study.report.json_report import render_json
from study.report.markdown import FIGURE_FOLDER, render_markdown
from study.report.verdict import Setting, headline, setting_of

__all__ = [
    "ReportPaths",
    "Setting",
    "VerdictCard",
    "headline",
    "report_contents",
    "setting_of",
    "verdict_card",
    "write_report",
]


_JSON = "report.json"


def write_report(
    results: StudyResults,
    folder: str | os.PathLike[str],
    dataset_sizes: Sequence[int] = (),
    memory_limit_gib: float | None = None,
) -> ReportPaths:
    """Write ``report.html`` (self-contained), ``report.md`` with ``figures/*.svg`` and ``*.png``,
    ``report.json``, and every trial as ``trials.csv`` and ``trials.json`` into `folder`.

    Works for a study in any state. Files of an earlier report are replaced, each in one step;
    others of such names are not.

    Args:
        dataset_sizes: training examples to answer for; empty: the study's own
            ``decision.dataset_size``, or its largest size.
        memory_limit_gib: of one device; None: no limit.

    Raises:
        UserError: the folder holds files of these names that are no report of ours.
        OSError: the folder cannot be written.
    """
    summary = summarise(results, dataset_sizes, memory_limit_gib)
    return write_summary(results, summary, folder)


def write_summary(
    results: StudyResults, summary: StudySummary, folder: str | os.PathLike[str]
) -> ReportPaths:
    """`write_report` of a summary that is there already."""
    folder = Path(folder)
    _refuse_foreign(folder)
    contents = report_contents(results, summary)
    # First: it tells a report of ours from other files.
    write_text(folder / _JSON, render_json(results, summary, contents))
    paths = ReportPaths(
        html=folder / "report.html",
        markdown=folder / "report.md",
        json=folder / _JSON,
        figures=_write_figures(contents.figures, folder / FIGURE_FOLDER),
        downloads=tuple(folder / download.name for download in contents.downloads),
    )
    for path, download in zip(paths.downloads, contents.downloads, strict=True):
        write_text(path, download.text)
    write_text(paths.markdown, render_markdown(contents))
    write_text(paths.html, render_html(contents))
    return paths


def _refuse_foreign(folder: Path) -> None:
    names = (_JSON, "report.html", "report.md", "trials.csv", "trials.json", FIGURE_FOLDER)
    there = [name for name in names if os.path.lexists(folder / name)]
    if not there:
        return
    try:
        found = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        is_report = {"schema", "study", "verdicts"} <= found.keys()
    except (OSError, ValueError, AttributeError):
        is_report = False
    if not is_report:
        raise UserError(
            f"{folder} holds {', '.join(there)}, which is no report of this program's and would be "
            "replaced. Give --output another folder."
        )


def _write_figures(figures: Sequence[Figure], folder: Path) -> tuple[Path, ...]:
    drawn = tuple(folder / f"{figure.name}.svg" for figure in figures)
    for path, figure in zip(drawn, figures, strict=True):
        write_text(path, figure.svg)
        write_bytes(path.with_suffix(".png"), to_png(figure))
    return drawn
