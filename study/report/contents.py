"""Everything a report says, in order, independent of its format."""

from __future__ import annotations

from typing import TypeVar

from altair.utils.schemapi import debug_mode

from study.analysis import StudySummary, caveats, crossover_sentence, found_sentences
from study.protocol.results import StudyResults
from study.report import cost, tables, text
from study.report.base import Contents, Figure, Section, Table
from study.report.card import verdict_card
from study.report.case import case_cards, case_table
from study.report.downloads import trial_downloads
from study.report.fairness import fairness_sections
from study.report.figures.cost_figure import draw_cost
from study.report.figures.difference_figure import draw_difference
from study.report.figures.forgetting_figures import draw_forgetting, draw_learning_forgetting
from study.report.figures.loss_figures import draw_curves, draw_loss
from study.report.gates import gates_section
from study.report.methods import methods_section
from study.report.sweep import sweep_section
from study.report.verdict import Setting, setting_of
from study.report.winners import winners_section
from study.strategies import arm_label

_T = TypeVar("_T", Figure, Table)


def report_contents(results: StudyResults, summary: StudySummary) -> Contents:
    """The whole report."""
    # Altair checks every part of a chart against its schema each time it is made, which takes as
    # long as drawing them; the tests draw with the checks on.
    with debug_mode(False):
        return _contents(results, summary)


def _contents(results: StudyResults, summary: StudySummary) -> Contents:
    setting = setting_of(results, summary)
    arms = " and ".join(map(arm_label, summary.arms))
    return Contents(
        title=results.config.name,
        subtitle=f"{arms} fine-tuning of {results.config.model.path}",
        banner=text.banner(summary),
        cards=tuple(verdict_card(verdict, setting) for verdict in summary.verdicts),
        sweep=sweep_section(summary),
        case=case_cards(setting),
        case_table=case_table(setting, summary.verdicts),
        headline=found_sentences(summary),
        caveats=caveats(summary),
        tiles=text.tiles(summary, results),
        sections=_sections(results, summary, setting),
        downloads=trial_downloads(results),
        footer=text.footer(results),
    )


def _sections(
    results: StudyResults, summary: StudySummary, setting: Setting
) -> tuple[Section, ...]:
    sections = [
        _difference_section(summary),
        _loss_section(summary),
        _forgetting_section(summary),
        Section(
            "cost",
            "Cost and memory",
            figures=_some(draw_cost(summary)),
            tables=(
                *_some(cost.ratio_table(summary.verdicts, setting.grid, summary.sizes)),
                cost.cost_table(summary),
                cost.memory_table(summary),
            ),
        ),
        cost.prefix_cache_section(summary),
        *fairness_sections(results, summary),
        Section("curves", "Learning curves of the winners", figures=_some(draw_curves(summary))),
        gates_section(summary.verdicts),
        winners_section(summary),
        Section("failures", "Failures", tables=_some(tables.failures_table(results.trials))),
        text.compared_section(results),
        methods_section(results, summary),
        Section(
            "trials",
            "Every trial",
            folded=True,
            tables=_filled(tables.trials_table(results.trials, summary)),
        ),
    ]
    return tuple(s for s in sections if s.figures or s.tables or s.facts or s.paragraphs)


def _difference_section(summary: StudySummary) -> Section:
    """Which arm is better where; the figure's takeaway is what the band says."""
    figures = _some(draw_difference(summary, [v.dataset_size for v in summary.verdicts]))
    crossing = crossover_sentence(summary)
    return Section(
        "difference",
        "Which arm is better, by dataset size",
        paragraphs=(crossing,) if crossing and not figures else (),
        figures=figures,
    )


def _loss_section(summary: StudySummary) -> Section:
    drawn, found = _some(draw_loss(summary)), tables.loss_tables(summary)
    return Section("loss", "Loss by dataset size", figures=drawn, tables=found)


def _forgetting_section(summary: StudySummary) -> Section:
    forgetting = draw_forgetting(summary)
    asked = summary.verdicts[0] if summary.verdicts else None
    return Section(
        "forgetting",
        "Learning and forgetting",
        figures=(*_some(draw_learning_forgetting(summary, asked)), *_some(forgetting)),
        tables=(tables.forgetting_table(summary),) if forgetting else (),
    )


def _some(found: _T | None) -> tuple[_T, ...]:
    return () if found is None else (found,)


def _filled(table: Table) -> tuple[Table, ...]:
    return (table,) if table.rows else ()
