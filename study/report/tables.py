"""The tables: laid-out numbers of the analysis, one row per size, winner or trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from study.analysis import (
    CellSummary,
    Difference,
    Estimate,
    StudySummary,
    device_seconds_of,
    peak_memory_of,
    score_of,
    steps_done,
)
from study.basics.text_format import capital, metric_title
from study.protocol.records import TrialRecord, TrialState, base_name
from study.report.base import (
    ARM_COLUMN,
    BY_CELL,
    MISSING,
    SIZE_COLUMN,
    Column,
    Table,
    Written,
    between,
    column_of,
    count,
    gib,
    loss,
    numeric,
    or_dash,
    ratio,
    seconds,
    table_of,
)
from study.strategies import arm_label

_T = TypeVar("_T")


def loss_table(summary: StudySummary) -> Table:
    """Means per arm and size, with their spread and how many runs stand behind each."""
    split = summary.split
    metrics = sorted({name for cell in summary.cells for name in cell.metrics_on(split)})
    named = base_name(summary.config.task, summary.base)
    base = summary.base_loss(split)
    caption = (
        f"Mean {split} loss in nats. SD: over replicate means. Below {named}: its loss minus the "
        "mean; above 0 means that something was learned."
    )

    def found(write: Callable[[Estimate], str]) -> Callable[[CellSummary], str]:
        return lambda cell: or_dash(cell.loss(split), write)

    def below(mean: Estimate) -> str:
        return loss(None if base is None else base - mean.mean, sign=True)

    def metric(name: str) -> Written[CellSummary]:
        return numeric(metric_title(name), lambda cell: loss(cell.metrics_on(split).get(name)))

    return table_of(
        caption,
        summary.cells_by_size,
        *BY_CELL,
        numeric(f"Mean {split} loss", found(lambda e: loss(e.mean))),
        numeric("SD", found(lambda e: loss(e.sd))),
        numeric("Range of replicates", found(lambda e: between(e.low, e.high))),
        (Column("Runs"), found(lambda e: e.extent)),
        numeric(f"Below {named}", found(below)),
        *map(metric, metrics),
    )


def loss_tables(summary: StudySummary) -> tuple[Table, ...]:
    """Losses, and their differences where both arms have some."""
    found = summary.shown_differences
    return (loss_table(summary), *([difference_table(found)] if found else []))


def difference_table(differences: Sequence[Difference]) -> Table:
    """Per size, of at least one; the interval is of test losses only."""
    pair = differences[0].pair
    reference, challenger = pair.labels
    ratio_of = f"{challenger}/{reference} cost"
    caption = (
        f"Difference of the arms' losses in nats, paired over replicates. Above 0 {challenger}'s "
        "loss is lower. 95 % interval: of the mean difference by a curve through all sizes (HC2 "
        "variance, Bell-McCaffrey degrees of freedom), the test split's own error included. "
        f"{ratio_of}: measured device-seconds of one {challenger} run over one {reference} run; "
        "cold: each with an empty prefix cache at its start."
    )
    return table_of(
        caption,
        differences,
        (SIZE_COLUMN, lambda d: count(d.size)),
        numeric(capital(pair.difference), lambda d: loss(d.mean, sign=True)),
        numeric("Range of replicates", lambda d: between(d.low, d.high, sign=True)),
        numeric(
            "95 % interval",
            lambda d: MISSING if d.interval is None else between(*d.interval, sign=True),
        ),
        (Column("Lower loss"), _lower),
        (Column("Runs per arm"), lambda d: d.extent),
        numeric(f"{ratio_of}, cold", lambda d: ratio(d.cold_cost_ratio)),
        numeric(f"{ratio_of}, as run", lambda d: ratio(d.spent_cost_ratio)),
    )


def _lower(difference: Difference) -> str:
    if round(difference.mean, 3) == 0:
        return "equal"
    reference, challenger = difference.pair.labels
    return challenger if difference.mean > 0 else reference


def forgetting_table(summary: StudySummary) -> Table:
    """Rise of the retention loss per arm and size."""
    cells = [(c, c.retention_rise) for c in summary.cells_by_size if c.retention_rise is not None]
    return table_of(
        "Rise of the retention loss over the base model's, in nats.",
        cells,
        (SIZE_COLUMN, lambda c: count(c[0].size)),
        (ARM_COLUMN, lambda c: arm_label(c[0].arm)),
        numeric("Mean rise", lambda c: loss(c[1].mean, sign=True)),
        numeric("Range of replicates", lambda c: between(c[1].low, c[1].high, sign=True)),
        (Column("Runs"), lambda c: c[1].extent),
    )


def winners_table(summary: StudySummary) -> Table:
    """Every replicate's winner with its hyperparameters and losses."""
    won = [
        (cell, replicate, replicate.winner)
        for cell in summary.cells_by_size
        for replicate in cell.replicates
        if replicate.winner is not None
    ]
    caption = (
        "Losses in nats, those of confirm runs as means. Best: at its size, the lowest mean "
        "validation loss over its confirm runs (without confirm runs, in the search)."
    )
    return table_of(
        caption,
        won,
        (SIZE_COLUMN, lambda w: count(w[0].size)),
        (ARM_COLUMN, lambda w: arm_label(w[0].arm)),
        numeric("Replicate", lambda w: str(w[1].replicate)),
        *hyperparameter_columns(won, lambda w: w[2]),
        numeric("Search validation", lambda w: loss(w[1].search_score)),
        numeric("Confirm validation", lambda w: loss(w[1].confirm_score)),
        numeric("Test", lambda w: loss(w[1].test_loss)),
        (Column("Best"), lambda w: "best" if w[0].best is w[1] else ""),
        (Column("Trial"), lambda w: w[2].spec.trial_id),
    )


def trials_table(trials: tuple[TrialRecord, ...], summary: StudySummary) -> Table:
    """Every trial of the study."""
    winners = summary.winners
    caption = (
        "s: search trial, c: confirm run; n: training examples, r: replicate. Validation: lowest "
        "loss so far, whatever the state. Losses in nats."
    )
    return table_of(
        caption,
        trials,
        (Column("Trial"), lambda t: t.spec.trial_id),
        (Column("State"), lambda t: _state(t, winners)),
        *hyperparameter_columns(trials, lambda t: t),
        numeric("Validation", lambda t: loss(score_of(t))),
        numeric("Test", lambda t: loss(t.outcome.test_loss if t.outcome else None)),
        numeric("Steps", lambda t: f"{steps_done(t):,}/{t.spec.steps:,}"),
        numeric("Device-seconds", lambda t: seconds(device_seconds_of(t) or None)),
        numeric("Peak (GiB)", lambda t: gib(peak_memory_of(t))),
        (Column("Reason", wide=True), lambda t: t.outcome.reason if t.outcome else ""),
    )


def failures_table(trials: tuple[TrialRecord, ...]) -> Table | None:
    """Failed trials with their reasons; None when nothing failed."""
    lost = [t for t in trials if t.state is TrialState.FAIL]
    if not lost:
        return None
    return table_of(
        "Failed trials enter no mean and win nothing.",
        lost,
        (Column("Trial"), lambda t: t.spec.trial_id),
        (Column("Ended as"), lambda t: t.outcome.status if t.outcome else "lost"),
        *hyperparameter_columns(lost, lambda t: t),
        (
            Column("Reason", wide=True),
            lambda t: (t.outcome.reason if t.outcome else "") or "no reason on record",
        ),
    )


def _state(trial: TrialRecord, winners: frozenset[str]) -> str:
    text = {"FAIL": "failed"}.get(trial.state.value, trial.state.value.lower())
    if trial.outcome is not None and trial.outcome.status in ("stopped_early", "diverged"):
        text = trial.outcome.status.replace("_", " ")
    return f"{text}, winner" if trial.spec.trial_id in winners else text


def hyperparameter_columns(
    items: Sequence[_T], trial_of: Callable[[_T], TrialRecord]
) -> list[Written[_T]]:
    """A column for each hyperparameter of any item's trial."""
    trials = [trial_of(item) for item in items]

    def column(name: str) -> Written[_T]:
        texts = column_of([trial.spec.hyperparameters.get(name) for trial in trials])
        known = {t.spec.trial_id: text for t, text in zip(trials, texts, strict=True)}
        return numeric(name, lambda item: known[trial_of(item).spec.trial_id])

    return [column(n) for n in dict.fromkeys(n for t in trials for n in t.spec.hyperparameters)]
