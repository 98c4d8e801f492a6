"""The chapters on tuning: was each arm tuned as well as the other, and what mattered in it."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis import StudySummary, counted
from study.analysis.cells.base import Interval
from study.analysis.cells.best_of_k import best_of_k
from study.analysis.cells.importance import Importance, importances
from study.analysis.cells.optimism import optimism
from study.analysis.cells.rates import TrialShares, trial_shares
from study.analysis.learning_rates import LearningRates, learning_rates
from study.analysis.rules import MOST_AT_END
from study.protocol.results import StudyResults
from study.report.base import (
    ARM_COLUMN,
    BY_CELL,
    MISSING,
    Column,
    Section,
    Table,
    between,
    count,
    loss,
    numeric,
    or_dash,
    ratio,
    table_of,
)
from study.report.figures.fairness_figures import draw_best_of_k, draw_learning_rates, rate
from study.report.figures.importance_figure import draw_importance
from study.strategies import arm_label


def fairness_sections(results: StudyResults, summary: StudySummary) -> tuple[Section, ...]:
    """The chapters on tuning and on hyperparameters; a study without ended trials has neither."""
    rates = learning_rates(results, summary)
    shares = trial_shares(results)
    if not any(s.counts.ended for s in shares):
        return ()
    figures = (
        draw_best_of_k(summary, best_of_k(results)),
        draw_learning_rates(summary, rates),
    )
    title = "Was it tuned well?" if len(summary.arms) == 1 else "Were both arms tuned equally well?"
    return (
        Section(
            "fairness",
            title,
            paragraphs=(*_order_note(results), *filter(None, map(_at_a_bound, rates))),
            figures=tuple(figure for figure in figures if figure is not None),
            tables=(trials_table(shares),),
        ),
        hyperparameters_section(importances(results)),
    )


def trials_table(shares: Sequence[TrialShares]) -> Table:
    """How the trials of each arm and stage ended, with Wilson intervals of the shares."""
    caption = (
        "How trials ended: number, share of those that ended, and the share's 95 % interval "
        "(Wilson). Stopped by patience: part of the complete ones. Diverged: part of the failed "
        "ones, ended by a loss that was not finite."
    )
    return table_of(
        caption,
        shares,
        (ARM_COLUMN, lambda s: arm_label(s.arm)),
        (Column("Stage"), lambda s: str(s.stage)),
        numeric("Planned", lambda s: count(s.counts.planned)),
        numeric("Ended", lambda s: count(s.counts.ended)),
        numeric("Complete", lambda s: _share(s.counts.complete, s.complete, s.counts.ended)),
        numeric(
            "Stopped by patience",
            lambda s: _share(s.counts.stopped_early, s.stopped_early, s.counts.ended),
        ),
        numeric("Pruned", lambda s: _share(s.counts.pruned, s.pruned, s.counts.ended)),
        numeric("Failed", lambda s: _share(s.counts.failed, s.failed, s.counts.ended)),
        numeric("Diverged", lambda s: _share(s.counts.diverged, s.diverged, s.counts.ended)),
    )


def optimism_table(summary: StudySummary) -> Table | None:
    """What winners lost between the search and their confirm runs; None without confirm runs."""
    found = optimism(summary.cells)
    if not found:
        return None
    caption = (
        "Winners' mean losses in nats: in the search that picked them, and trained again with "
        "fresh seeds. Optimism gap: confirm minus search on the validation split; it is what was "
        "luck in the search, and an arm with the larger gap was flattered more. Test minus search "
        "also holds how much harder the test split is. SD: over replicates."
    )
    return table_of(
        caption,
        found,
        *BY_CELL,
        numeric("Validation, search", lambda o: loss(o.search.mean)),
        numeric("Validation, confirm", lambda o: loss(o.confirm.mean)),
        numeric("Test, confirm", lambda o: or_dash(o.test, lambda e: loss(e.mean))),
        numeric("Optimism gap", lambda o: loss(o.gap.mean, sign=True)),
        numeric("SD", lambda o: loss(o.gap.sd)),
        numeric("Range of replicates", lambda o: between(o.gap.low, o.gap.high, sign=True)),
        numeric(
            "Test minus search", lambda o: or_dash(o.test_gap, lambda e: loss(e.mean, sign=True))
        ),
        numeric("SD", lambda o: or_dash(o.test_gap, lambda e: loss(e.sd))),
    )


def hyperparameters_section(found: Sequence[Importance]) -> Section:
    """Importance in each arm, or why it is hidden."""
    figure = draw_importance(found)
    hidden = tuple(
        f"{arm_label(i.arm)}: no importance is shown. {i.hidden}" for i in found if i.hidden
    )
    caption = (
        "What importance rests on. Used: complete search trials with all their values inside the "
        "search space, compared inside their replicate; share: of all that ended. Fit: how well "
        "the hyperparameters foretell the order of the losses of trials that were left out; 1 is "
        "perfect, 0 is no better than a guess."
    )
    table = table_of(
        caption,
        found,
        (ARM_COLUMN, lambda i: arm_label(i.arm)),
        numeric("Trials used", lambda i: f"{i.used:,} of {i.ended:,}"),
        numeric("Share", lambda i: f"{i.used / i.ended:.0%}" if i.ended else MISSING),
        numeric("Fit (R\u00b2)", lambda i: ratio(i.fit)),
        (Column("Importance"), lambda i: "shown" if i.shares else "hidden"),
    )
    return Section(
        "hyperparameters",
        "Hyperparameters",
        paragraphs=hidden,
        figures=() if figure is None else (figure,),
        tables=(table,),
    )


def _order_note(results: StudyResults) -> tuple[str, ...]:
    if results.config.search.sampler != "tpe":
        return ()
    return (
        "TPE suggests later trials from earlier ones. The curve below takes a search's trials in "
        "any order, so it is a little too high at its start.",
    )


def _at_a_bound(rates: LearningRates) -> str:
    """A warning where more than a third of the winners lie in the tenth at one end; else empty."""
    if max(rates.winners_low, rates.winners_high) <= MOST_AT_END * rates.winners:
        return ""
    label = arm_label(rates.arm)
    low = rates.winners_low > rates.winners_high
    end, there = ("lowest", rates.winners_low) if low else ("highest", rates.winners_high)
    wider = (
        f"a `low` below {rate(rates.bounds.low)}"
        if low
        else f"a `high` above {rate(rates.bounds.high)}"
    )
    return (
        f"{label} may not be tuned as well as it can be: {there} of its "
        f"{counted(rates.winners, 'winner')} lie in the {end} tenth of the learning rates that "
        f"were searched, so better ones may lie beyond. A new study can search wider: give "
        f"`search.overrides.{rates.arm}.learning_rate` {wider}."
    )


def _share(number: int, share: Interval, ended: int) -> str:
    """E.g. ``3, 12 % (4 to 31)``."""
    if not ended or share.low is None or share.high is None:
        return MISSING
    return f"{number:,}, {share.value:.0%} ({100 * share.low:.0f} to {100 * share.high:.0f})"
