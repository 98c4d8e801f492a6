"""The tables: laid-out numbers of the analysis, one row per size, winner or trial."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.analysis import (
    Difference,
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
    MISSING,
    SIZE_COLUMN,
    Column,
    Table,
    between,
    column_of,
    count,
    gib,
    loss,
    numeric,
    ratio,
    seconds,
    table_of,
)
from study.strategies import arm_label


def loss_table(summary: StudySummary) -> Table:
    """Means per arm and size, with their spread and how many runs stand behind each."""
    split = summary.split
    metrics = sorted({name for cell in summary.cells for name in cell.metrics_on(split)})
    named = base_name(summary.config.task, summary.base)
    columns = (
        SIZE_COLUMN,
        ARM_COLUMN,
        Column(f"Mean {split} loss", number=True),
        Column("SD", number=True),
        Column("Range of replicates", number=True),
        Column("Runs"),
        Column(f"Below {named}", number=True),
        *(Column(metric_title(name), number=True) for name in metrics),
    )
    base = summary.base_loss(split)
    rows = []
    for cell in summary.cells_by_size:
        found = cell.loss(split)
        shown = [loss(cell.metrics_on(split).get(name)) for name in metrics]
        if found is None:
            rows.append((count(cell.size), arm_label(cell.arm), *[MISSING] * 5, *shown))
            continue
        rows.append(
            (
                count(cell.size),
                arm_label(cell.arm),
                loss(found.mean),
                loss(found.sd),
                between(found.low, found.high),
                found.extent,
                loss(None if base is None else base - found.mean, sign=True),
                *shown,
            )
        )
    caption = (
        f"Mean {split} loss in nats. SD: over replicate means. Below {named}: its loss minus the "
        "mean; above 0 means that something was learned."
    )
    return Table(caption, columns, tuple(rows))


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
    names, values = _hyperparameters([winner for _, _, winner in won])
    columns = (
        SIZE_COLUMN,
        ARM_COLUMN,
        Column("Replicate", number=True),
        *(Column(n, number=True) for n in names),
        Column("Search validation", number=True),
        Column("Confirm validation", number=True),
        Column("Test", number=True),
        Column("Best"),
        Column("Trial"),
    )
    rows = tuple(
        (
            count(cell.size),
            arm_label(cell.arm),
            str(replicate.replicate),
            *values[k],
            loss(replicate.search_score),
            loss(replicate.confirm_score),
            loss(replicate.test_loss),
            "best" if cell.best is replicate else "",
            winner.spec.trial_id,
        )
        for k, (cell, replicate, winner) in enumerate(won)
    )
    caption = (
        "Losses in nats, those of confirm runs as means. Best: at its size, the lowest mean "
        "validation loss over its confirm runs (without confirm runs, in the search)."
    )
    return Table(caption, columns, rows)


def trials_table(trials: tuple[TrialRecord, ...], summary: StudySummary) -> Table:
    """Every trial of the study."""
    winners = {
        r.winner.spec.trial_id for c in summary.cells for r in c.replicates if r.winner is not None
    }
    names, values = _hyperparameters(trials)
    columns = (
        Column("Trial"),
        Column("State"),
        *(Column(n, number=True) for n in names),
        Column("Validation", number=True),
        Column("Test", number=True),
        Column("Steps", number=True),
        Column("Device-seconds", number=True),
        Column("Peak (GiB)", number=True),
        Column("Reason", wide=True),
    )
    rows = tuple(
        (
            t.spec.trial_id,
            _state(t, winners),
            *values[k],
            loss(score_of(t)),
            loss(None if t.outcome is None else t.outcome.test_loss),
            f"{steps_done(t):,}/{t.spec.steps:,}",
            seconds(device_seconds_of(t) or None),
            gib(peak_memory_of(t)),
            "" if t.outcome is None else t.outcome.reason,
        )
        for k, t in enumerate(trials)
    )
    caption = (
        "s: search trial, c: confirm run; n: training examples, r: replicate. Validation: lowest "
        "loss so far, whatever the state. Losses in nats."
    )
    return Table(caption, columns, rows)


def failures_table(trials: tuple[TrialRecord, ...]) -> Table | None:
    """Failed trials with their reasons; None when nothing failed."""
    lost = [t for t in trials if t.state is TrialState.FAIL]
    if not lost:
        return None
    names, values = _hyperparameters(lost)
    columns = (
        Column("Trial"),
        Column("Ended as"),
        *(Column(n, number=True) for n in names),
        Column("Reason", wide=True),
    )
    rows = tuple(
        (
            t.spec.trial_id,
            t.outcome.status if t.outcome else "lost",
            *values[k],
            (t.outcome.reason if t.outcome else "") or "no reason on record",
        )
        for k, t in enumerate(lost)
    )
    return Table("Failed trials enter no mean and win nothing.", columns, rows)


def _state(trial: TrialRecord, winners: set[str]) -> str:
    text = {"FAIL": "failed"}.get(trial.state.value, trial.state.value.lower())
    if trial.outcome is not None and trial.outcome.status in ("stopped_early", "diverged"):
        text = trial.outcome.status.replace("_", " ")
    return f"{text}, winner" if trial.spec.trial_id in winners else text


def _hyperparameters(
    trials: Iterable[TrialRecord],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(names of all hyperparameters, per trial the texts of their values)."""
    trials = tuple(trials)
    names = tuple(dict.fromkeys(name for t in trials for name in t.spec.hyperparameters))
    if not names:
        return (), [() for _ in trials]
    texts = [column_of([t.spec.hyperparameters.get(name) for t in trials]) for name in names]
    return names, list(zip(*texts, strict=True))
