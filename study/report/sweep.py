"""What a study that compares nothing ends with: its best configurations, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable

from study.analysis import StudySummary
from study.analysis.verdict.ranking import Ranked, Ranking, to_comparison
from study.basics.text_format import capital, counted, metric_title
from study.report.base import (
    ARM_COLUMN,
    MISSING,
    SIZE_COLUMN,
    Column,
    Section,
    Table,
    Written,
    count,
    loss,
    numeric,
    table_of,
)
from study.report.tables import hyperparameter_columns
from study.strategies import arm_label

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
        paragraphs=(
            *map(how_sure, summary.rankings),
            judged_by(summary),
            comparison_hint(summary),
        ),
        tables=(_table(summary.rankings),),
    )


def shown(rankings: tuple[Ranking, ...], ranking: Ranking) -> int:
    """How many of its configurations are listed."""
    return min(len(ranking.ranked), _MOST if len(rankings) <= _MANY else _FEWEST)


def how_sure(ranking: Ranking) -> str:
    """Whether the first place is more than the luck of seeds, and the search was long enough."""
    text = f"{capital(arm_label(ranking.arm))} at {ranking.size:,} examples: {_order(ranking)}."
    if ranking.last_doubling is not None:
        text += (
            " The second half of the search trials lowered the lowest loss by "
            f"{ranking.last_doubling:.4f} nats."
        )
    return text


def judged_by(summary: StudySummary) -> str:
    """What is taken to be the work of seeds alone, and where that is known from."""
    found = sorted({f"{ranking.seed_sd:.4f}" for ranking in summary.rankings})
    sd = found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"
    if all(ranking.seed_freedom for ranking in summary.rankings):
        source = "by the confirm runs"
    else:
        source = "assumed, since no configuration ran twice"
        if summary.config.task != "causal-lm":
            source += "; a classifier with few examples may have several times that"
    return (
        "What seeds alone may make: the difference between two runs of one configuration, in 95 % "
        f"of cases, at a standard deviation of {sd} nats over seeds ({source})."
    )


def comparison_hint(summary: StudySummary) -> str:
    """The edit that makes the study choose between the arms."""
    change, trials = to_comparison(summary.config)
    grows = len(summary.arms) > 1
    how = "extend the study:" if grows else "start a study with"
    more = counted(trials, "more trial" if grows else "trial")
    return f"To compare {' and '.join(summary.pair.labels)}, {how} {change} ({more})."


def _order(ranking: Ranking) -> str:
    others = len(ranking.ranked) - 1
    if not others:
        return "the only configuration with a result"
    if not ranking.near:
        return (
            f"the first leads by {ranking.ranked[1].behind:.4f} nats, more than the "
            f"{ranking.reach:.4f} that seeds alone may make"
        )
    near = "the other one" if others == 1 else f"{ranking.near} of the {others} others"
    return (
        f"{near} {'is' if ranking.near == 1 else 'are'} behind the first by no more than seeds "
        f"alone may make ({ranking.reach:.4f} nats), so which is best is not shown"
    )


def _table(rankings: tuple[Ranking, ...]) -> Table:
    chosen = [(r, one) for r in rankings for one in r.ranked[: shown(rankings, r)]]

    def metric(name: str) -> Written[tuple[Ranking, Ranked]]:
        return numeric(metric_title(name), lambda c: loss(c[1].metrics.get(name)))

    def after_first(write: Callable[[Ranked], str]) -> Callable[[tuple[Ranking, Ranked]], str]:
        return lambda c: MISSING if c[1] is c[0].ranked[0] else write(c[1])

    return table_of(
        "The lowest validation losses in nats: means of confirm runs where there are any, else of "
        "the search, which flatters its best. Told apart: behind the first by more than seeds "
        "alone may make.",
        chosen,
        (SIZE_COLUMN, lambda c: count(c[0].size)),
        (ARM_COLUMN, lambda c: arm_label(c[0].arm)),
        (Column("Trial"), lambda c: c[1].trial.spec.trial_id),
        numeric("Validation loss", lambda c: f"{c[1].loss:.4f}"),
        numeric("Behind", after_first(lambda one: f"{one.behind:.4f}")),
        (Column("Told apart"), after_first(lambda one: "yes" if one.told_apart else "no")),
        *map(metric, sorted({name for r in rankings for one in r.ranked for name in one.metrics})),
        *hyperparameter_columns(chosen, lambda c: c[1].trial),
    )
