"""What a study that compares nothing ends with: its best configurations, and how sure that is."""

from __future__ import annotations

from study.analysis import StudySummary, arm_label
from study.analysis.ranking import Ranking, to_comparison
from study.report.base import (
    ARM_COLUMN,
    MISSING,
    SIZE_COLUMN,
    Column,
    Section,
    Table,
    capital,
    column_of,
    count,
    loss,
)
from study.text_format import counted, metric_title

_MOST, _FEWEST, _MANY = 3, 1, 2
"""Configurations shown of each arm and size, and of how many arms and sizes they are fewer."""


def sweep_section(summary: StudySummary) -> Section | None:
    """Best configurations per arm and size, whether their order is shown, and what would make the
    study a comparison; None for a comparison, and before any trial is complete."""
    if not summary.rankings:
        return None
    return Section(
        "best",
        "Best configurations",
        paragraphs=(*map(how_sure, summary.rankings), comparison_hint(summary)),
        tables=(_table(summary.rankings),),
    )


def shown(rankings: tuple[Ranking, ...], ranking: Ranking) -> int:
    """How many of its configurations are listed."""
    return min(len(ranking.ranked), _MOST if len(rankings) <= _MANY else _FEWEST)


def how_sure(ranking: Ranking) -> str:
    """Whether the first place, and the order behind it, is more than the luck of seeds."""
    where = f"{capital(arm_label(ranking.arm))} at {ranking.size:,} examples"
    return f"{where}: {_order(ranking)}.{_more_trials(ranking)}"


def comparison_hint(summary: StudySummary) -> str:
    """The edit that makes the study choose between the arms."""
    change, trials = to_comparison(summary.config)
    if len(summary.arms) == 2:
        return (
            "This study ranks configurations and does not compare the arms. To compare them, "
            f"extend it: {change} ({counted(trials, 'more trial')})."
        )
    return (
        "This study has one arm and compares nothing. A study that compares full and LIFT has "
        f"{change} ({counted(trials, 'trial')})."
    )


def _order(ranking: Ranking) -> str:
    others = len(ranking.ranked) - 1
    if not others:
        return "it is the only configuration with a result"
    sd = f"{ranking.seed_sd:.4f} nats"
    if ranking.seed_runs:
        basis = f"a configuration's loss has a standard deviation of {sd} over its confirm seeds"
    else:
        basis = f"a standard deviation of {sd} over seeds is assumed, no configuration ran twice"
    if not ranking.near:
        return (
            f"the first is {ranking.ranked[1].behind:.4f} nats ahead of the next, more than the "
            f"{ranking.reach:.4f} that seeds alone are likely to make ({basis})"
        )
    near = f"{ranking.near} of the {others} others" if others > 1 else "the other one"
    lie = "lies" if ranking.near == 1 else "lie"
    return (
        f"{near} {lie} within {ranking.reach:.4f} nats of the first, as far as seeds alone are "
        f"likely to part two runs ({basis}), so which of them is best is not shown"
    )


def _more_trials(ranking: Ranking) -> str:
    gain = ranking.last_doubling
    if gain is None:
        return ""
    return f" The second half of the search trials lowered the lowest loss by {gain:.4f} nats."


def _table(rankings: tuple[Ranking, ...]) -> Table:
    chosen = [(r, place) for r in rankings for place in range(shown(rankings, r))]
    trials = [ranking.ranked[place].trial for ranking, place in chosen]
    names = tuple(dict.fromkeys(name for t in trials for name in t.spec.hyperparameters))
    columns = [column_of([t.spec.hyperparameters.get(name) for t in trials]) for name in names]
    metrics = sorted({name for r in rankings for one in r.ranked for name in one.metrics})
    rows = []
    for index, (ranking, place) in enumerate(chosen):
        one = ranking.ranked[place]
        rows.append(
            (
                count(ranking.size),
                arm_label(ranking.arm),
                one.trial.spec.trial_id,
                f"{one.loss:.4f}",
                f"{one.behind:.4f}" if place else MISSING,
                ("yes" if one.told_apart else "no") if place else MISSING,
                *(loss(one.metrics.get(name)) for name in metrics),
                *(column[index] for column in columns),
            )
        )
    return Table(
        "The lowest validation losses in nats: means of confirm runs where there are any, else of "
        "the search, which flatters its best. Told apart: behind the first by more than seeds "
        "alone are likely to make.",
        (
            SIZE_COLUMN,
            ARM_COLUMN,
            Column("Trial"),
            Column("Validation loss", number=True),
            Column("Behind", number=True),
            Column("Told apart"),
            *(Column(metric_title(name), number=True) for name in metrics),
            *(Column(name, number=True) for name in names),
        ),
        tuple(rows),
    )
