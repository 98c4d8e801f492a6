"""The chapters on tuning: was each arm tuned as well as the other, and what mattered in it."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis import Estimate, StudySummary, counted
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
    MISSING,
    SIZE_COLUMN,
    Column,
    Section,
    Table,
    between,
    count,
    loss,
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
    columns = (
        ARM_COLUMN,
        Column("Stage"),
        Column("Planned", number=True),
        Column("Ended", number=True),
        Column("Complete", number=True),
        Column("Stopped by patience", number=True),
        Column("Pruned", number=True),
        Column("Failed", number=True),
        Column("Diverged", number=True),
    )
    rows = tuple(
        (
            arm_label(s.arm),
            str(s.stage),
            count(s.counts.planned),
            count(s.counts.ended),
            _share(s.counts.complete, s.complete, s.counts.ended),
            _share(s.counts.stopped_early, s.stopped_early, s.counts.ended),
            _share(s.counts.pruned, s.pruned, s.counts.ended),
            _share(s.counts.failed, s.failed, s.counts.ended),
            _share(s.counts.diverged, s.diverged, s.counts.ended),
        )
        for s in shares
    )
    caption = (
        "How trials ended: number, share of those that ended, and the share's 95 % interval "
        "(Wilson). Stopped by patience: part of the complete ones. Diverged: part of the failed "
        "ones, ended by a loss that was not finite."
    )
    return Table(caption, columns, rows)


def optimism_table(summary: StudySummary) -> Table | None:
    """What winners lost between the search and their confirm runs; None without confirm runs."""
    rows = tuple(
        (
            count(o.size),
            arm_label(o.arm),
            loss(o.search.mean),
            loss(o.confirm.mean),
            MISSING if o.test is None else loss(o.test.mean),
            loss(o.gap.mean, sign=True),
            loss(o.gap.sd),
            between(o.gap.low, o.gap.high, sign=True),
            *_mean_and_sd(o.test_gap),
        )
        for o in optimism(summary.cells)
    )
    if not rows:
        return None
    columns = (
        SIZE_COLUMN,
        ARM_COLUMN,
        Column("Validation, search", number=True),
        Column("Validation, confirm", number=True),
        Column("Test, confirm", number=True),
        Column("Optimism gap", number=True),
        Column("SD", number=True),
        Column("Range of replicates", number=True),
        Column("Test minus search", number=True),
        Column("SD", number=True),
    )
    caption = (
        "Winners' mean losses in nats: in the search that picked them, and trained again with "
        "fresh seeds. Optimism gap: confirm minus search on the validation split; it is what was "
        "luck in the search, and an arm with the larger gap was flattered more. Test minus search "
        "also holds how much harder the test split is. SD: over replicates."
    )
    return Table(caption, columns, rows)


def hyperparameters_section(found: Sequence[Importance]) -> Section:
    """Importance in each arm, or why it is hidden."""
    figure = draw_importance(found)
    hidden = tuple(
        f"{arm_label(i.arm)}: no importance is shown. {i.hidden}" for i in found if i.hidden
    )
    rows = tuple(
        (
            arm_label(i.arm),
            f"{i.used:,} of {i.ended:,}",
            MISSING if not i.ended else f"{i.used / i.ended:.0%}",
            MISSING if i.fit is None else f"{i.fit:.2f}",
            "shown" if i.shares else "hidden",
        )
        for i in found
    )
    columns = (
        ARM_COLUMN,
        Column("Trials used", number=True),
        Column("Share", number=True),
        Column("Fit (R\u00b2)", number=True),
        Column("Importance"),
    )
    caption = (
        "What importance rests on. Used: complete search trials with all their values inside the "
        "search space, compared inside their replicate; share: of all that ended. Fit: how well "
        "the hyperparameters foretell the order of the losses of trials that were left out; 1 is "
        "perfect, 0 is no better than a guess."
    )
    return Section(
        "hyperparameters",
        "Hyperparameters",
        paragraphs=hidden,
        figures=() if figure is None else (figure,),
        tables=(Table(caption, columns, rows),),
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


def _mean_and_sd(found: Estimate | None) -> tuple[str, str]:
    if found is None:
        return MISSING, MISSING
    return loss(found.mean, sign=True), loss(found.sd)
