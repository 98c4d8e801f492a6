"""The winning configurations: ready to copy, and how far the search flattered them."""

from __future__ import annotations

from study.analysis import StudySummary
from study.basics.text_format import capital
from study.report import tables
from study.report.base import Section, Snippet, loss
from study.report.fairness import optimism_table
from study.report.text import asked_size, to_yaml
from study.strategies import arm_label


def winners_section(summary: StudySummary) -> Section:
    """Snippets, their losses on validation and test, and every replicate's winner."""
    found = (optimism_table(summary), tables.winners_table(summary))
    return Section(
        "winners",
        "Winning configurations",
        paragraphs=_paragraphs(summary),
        snippets=winning_snippets(summary),
        tables=tuple(table for table in found if table is not None and table.rows),
    )


def _paragraphs(summary: StudySummary) -> tuple[str, ...]:
    size = asked_size(summary)
    told = []
    for arm in summary.arms:
        best = None if size is None else summary.cell(arm, size).best
        if best is None or best.search_score is None:
            continue
        text = f"{arm_label(arm)} at {size:,} examples: validation loss {loss(best.search_score)}"
        if best.confirm_score is not None:
            gap = best.confirm_score - best.search_score
            text += f" in the search and {loss(best.confirm_score)} once trained again"
            text += f" (optimism gap {loss(gap, sign=True)})"
        text += f"; test loss {loss(best.test_loss)}." if best.test_loss is not None else "."
        told.append(capital(text))
    return tuple(told)


def winning_snippets(summary: StudySummary) -> tuple[Snippet, ...]:
    """Per arm the best configuration at the asked size, as YAML."""
    made = []
    size = asked_size(summary)
    for arm in summary.arms:
        best = None if size is None else summary.cell(arm, size).best
        if best is None or best.winner is None:
            continue
        section = getattr(summary.config.arms, arm).model_dump()
        spec = best.winner.spec
        options = {k: spec.hyperparameters.get(k, v) for k, v in section.items()}
        rest = {k: v for k, v in spec.hyperparameters.items() if k not in options}
        text = to_yaml(
            {"arm": arm, "arm_options": options, "hyperparameters": rest, "steps": spec.steps}
        )
        made.append(Snippet(f"{arm_label(arm)} at {spec.size:,} examples ({spec.trial_id})", text))
    return tuple(made)
