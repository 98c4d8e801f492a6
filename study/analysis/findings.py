"""The few sentences a reader takes away. They say what was measured and no more."""

from __future__ import annotations

from study.analysis.cells.base import CellSummary, Difference, Split, counted
from study.analysis.summary import StudySummary
from study.protocol.records import base_name
from study.protocol.words import BASES
from study.strategies import arm_label

_LOSS_NAMES: dict[Split, str] = {"test": "mean test loss", "validation": "mean validation loss"}
_EQUAL_COST = (0.9, 1.1)


def found_sentences(summary: StudySummary) -> tuple[str, str]:
    """(what was found, what stands behind it and what it does not show), one sentence each."""
    if not any(cell.loss(summary.split) for cell in summary.cells):
        return _nothing_found(summary)
    if len(summary.arms) > 1:
        found = _asked_difference(summary)
        if found is not None:
            return _compared(summary, found), _behind_comparison(summary, found)
    cell = _asked_cell(summary)
    return _one_arm(summary, cell), _behind_one_arm(summary, cell)


def crossover_sentence(summary: StudySummary) -> str:
    """What the curve's band says of all tested sizes at once; empty without a curve."""
    if summary.curve is None or len(summary.sizes) < 2:
        return ""
    found = summary.curve.crossover()
    basis = BASES[summary.config.comparison].phrase
    start = f"By the simultaneous 95 % band of the curve, {basis},"
    if found.kind == "unidentified":
        return (
            f"{start} neither arm's mean test loss is shown to be lower at every tested size, and "
            "no crossing is shown either."
        )
    if (arm := found.throughout(summary.pair)) is not None:
        return f"{start} {arm_label(arm)}'s mean test loss is lower at every tested size."
    assert found.low is not None and found.high is not None
    small, large = map(arm_label, found.sides(summary.pair))
    return (
        f"{start} {small}'s mean test loss is lower up to {found.low:,.0f} "
        f"examples and {large}'s from {found.high:,.0f} on; they cross in between."
    )


def caveats(summary: StudySummary) -> tuple[str, ...]:
    """What a reader must know beside the headline, one plain sentence each."""
    notes, base = [], base_name(summary.config.task, summary.base)
    for arm, size in summary.unlearned:
        split = "test" if summary.cell(arm, size).test else "validation"
        notes.append(
            f"At {size:,} examples {arm_label(arm)} did not learn the task: its mean {split} loss "
            f"is not below the {base}'s."
        )
    lost = sum(r.confirm_failed for cell in summary.cells for r in cell.replicates)
    if lost:
        notes.append(f"{counted(lost, 'confirm run')} failed and {_is_are(lost)} in no mean.")
    diverged = sum(r.confirm_diverged for cell in summary.cells for r in cell.replicates)
    if diverged:
        scores = "scores" if diverged == 1 else "score"
        notes.append(f"{counted(diverged, 'confirm run')} diverged and {scores} the {base}'s loss.")
    stale = sum(r.confirm_stale for cell in summary.cells for r in cell.replicates)
    if stale:
        notes.append(
            f"{counted(stale, 'confirm run')} of former winners (the search went on after them) "
            f"{_is_are(stale)} in no mean."
        )
    if summary.config.comparison == "device_seconds":
        notes += [
            f"At {d.size:,} examples {_costs(d)}, so the arms did not cost the same there."
            for d in summary.differences or summary.validation_differences
            if d.cold_cost_ratio is not None and not _same_cost(d.cold_cost_ratio)
        ]
    return tuple(notes)


def _asked_difference(summary: StudySummary) -> Difference | None:
    known = summary.shown_differences
    asked = summary.config.decision.dataset_size
    return next((d for d in known if d.size == asked), known[-1] if known else None)


def _asked_cell(summary: StudySummary) -> CellSummary:
    known = [cell for cell in summary.cells if cell.loss(summary.split)]
    asked = summary.config.decision.dataset_size
    return next((c for c in known if c.size == asked), max(known, key=lambda c: c.size))


def _compared(summary: StudySummary, found: Difference) -> str:
    where = f"At {found.size:,} examples, {BASES[summary.config.comparison].phrase},"
    name = _LOSS_NAMES[found.split]
    reference, challenger = found.pair.labels
    theirs, ours = (found.arms[arm].mean for arm in found.pair)
    losses = f"({ours:.3f} against {theirs:.3f})"
    gap = f"{abs(found.mean):.3f}"
    if float(gap) == 0:
        same = f"the same as {reference}'s to three decimals"
        text = f"{where} {challenger}'s {name} was {same} {losses}"
    else:
        side = "lower" if found.mean > 0 else "higher"
        text = f"{where} {challenger}'s {name} was {gap} nats {side} than {reference}'s {losses}"
    return f"{text}{_unlearned_clause(summary, found)}{_other_sizes_clause(summary)}."


def _unlearned_clause(summary: StudySummary, found: Difference) -> str:
    base = summary.base_loss(found.split)
    if base is None:
        return ""
    flat = [arm_label(arm) for arm in found.pair if found.arms[arm].mean >= base]
    if not flat:
        return ""
    who = "neither arm" if len(flat) == 2 else f"{flat[0]} did not get"
    verb = " got" if len(flat) == 2 else ""
    name = base_name(summary.config.task, summary.base)
    return f", but {who}{verb} below the {name}'s {base:.3f}"


def _other_sizes_clause(summary: StudySummary) -> str:
    known = summary.shown_differences
    if len(known) < 2:
        return ""
    lower = sum(d.mean > 0 for d in known)
    where = {0: "none of the", len(known): "all"}.get(lower, f"{lower} of")
    return f"; {summary.pair.labels[1]}'s was the lower one at {where} {len(known)} sizes"


def _behind_comparison(summary: StudySummary, found: Difference) -> str:
    text = f"Each {_mean_over(found.split, found.extent)}"
    if found.replicates > 1:
        spread = f"ranged from {found.low:+.3f} to {found.high:+.3f} nats"
        over = counted(found.replicates, "replicate")
        text += f"; {found.pair.difference} {spread} over {over}"
    if found.cold_cost_ratio is not None:
        text += f"; {_costs(found)}"
    return f"{text}{_so_far(summary)}{_interval(summary, found)}."


def _mean_over(split: Split, extent: str) -> str:
    if split == "test":
        return f"mean is over {extent}"
    return (
        f"mean is over the search winners of {extent}, on the validation split that picked them, "
        "and no test loss was measured"
    )


def _interval(summary: StudySummary, found: Difference) -> str:
    if found.interval is None or summary.curve is None:
        return "; too few confirm runs for an interval, so no statistical claim is made"
    low, high = found.interval
    sizes = len(set(summary.curve.paired.sizes.tolist()))
    return (
        f"; 95 % interval of {found.pair.difference} {low:+.3f} to {high:+.3f} nats, fitted to "
        f"{counted(sizes, 'size')}, the test split's error included"
    )


def _one_arm(summary: StudySummary, cell: CellSummary) -> str:
    loss = cell.loss(summary.split)
    assert loss is not None  # the caller picked a cell that has one
    name = _LOSS_NAMES[summary.split]
    start = f"At {cell.size:,} examples {arm_label(cell.arm)}'s {name} was {loss.mean:.3f}"
    base, name = summary.base_loss(summary.split), base_name(summary.config.task, summary.base)
    if base is None:
        return f"{start}; the {name}'s was not measured."
    gap = base - loss.mean
    if gap <= 0:
        return f"{start}, not below the {name}'s {base:.3f}, so it did not learn the task."
    return f"{start}, {gap:.3f} nats below the {name}'s {base:.3f}."


def _behind_one_arm(summary: StudySummary, cell: CellSummary) -> str:
    loss = cell.loss(summary.split)
    assert loss is not None  # as above
    text = f"The {_mean_over(summary.split, loss.extent)}"
    if loss.replicates > 1:
        text += f", with replicates from {loss.low:.3f} to {loss.high:.3f}"
    if len(summary.arms) > 1:
        others = " and ".join(arm_label(a) for a in summary.arms if a != cell.arm)
        text += f"; {others} has no result to compare it with"
    else:
        text += "; with one arm nothing is compared"
    return f"{text}{_so_far(summary)}."


def _nothing_found(summary: StudySummary) -> tuple[str, str]:
    counts = summary.counts
    if counts.ended and counts.ended == counts.failed:
        every = "The one trial" if counts.ended == 1 else f"All {counts.ended} trials"
        diverged = f" ({counts.diverged} of them diverged)" if counts.diverged else ""
        first = f"{every} that ended failed{diverged}, so there is no result."
        return first, "The report lists every failure with its reason."
    state = ", ".join(
        f"{number} {name}"
        for number, name in (
            (counts.running, "running"),
            (counts.paused, "paused"),
            (counts.waiting, "waiting"),
            (counts.pruned, "pruned"),
            (counts.failed, "failed"),
        )
        if number
    )
    what = "No search has ended yet" if counts.complete else "No trial is complete yet"
    first = f"{what}: {state}." if state else "The study has no trials."
    return first, "Nothing can be said about the arms yet."


def _so_far(summary: StudySummary) -> str:
    counts = summary.counts
    if summary.finished:
        return ""
    return f"; the study is unfinished ({counts.ended} of {counts.planned} trials ended)"


def _costs(found: Difference) -> str:
    """What one run of the challenger cost against one of the reference: cold, as the basis has it,
    and as spent."""
    reference, challenger = found.pair.labels
    cold = f"{found.cold_cost_ratio:.2f}"
    spent = cold if found.spent_cost_ratio is None else f"{found.spent_cost_ratio:.2f}"
    if cold == spent:
        return f"one {challenger} run took {cold} times the device seconds of a {reference} one"
    return (
        f"one {challenger} run takes {cold} times the device seconds of a {reference} one when its "
        f"prefix cache starts empty (it took {spent} times here, with what other trials had cached)"
    )


def _same_cost(ratio: float) -> bool:
    return _EQUAL_COST[0] <= ratio <= _EQUAL_COST[1]


def _is_are(number: int) -> str:
    return "is" if number == 1 else "are"
