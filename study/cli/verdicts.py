"""What a study answers, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from study.basics.text_format import counted, duration, percent
from study.cli.output import Console, print_indented, told_metrics

if TYPE_CHECKING:
    from study.analysis import StudySummary
    from study.analysis.verdict.records import NextRuns
    from study.protocol.results import StudyResults


def print_verdicts(console: Console, results: StudyResults, summary: StudySummary) -> None:
    """A verdict for each dataset size that was asked about; for a study that compares nothing,
    what it found."""
    from study.analysis import found_sentences
    from study.report import setting_of, verdict_card

    if not summary.verdicts:
        first, second = found_sentences(summary)
        console.print(Text(first, style="bold"))
        console.print(second)
        print_sweep(console, summary)
        return
    setting = setting_of(results, summary)
    for number, verdict in enumerate(summary.verdicts):
        card = verdict_card(verdict, setting)
        if number:
            console.print()
        console.print(Text(card.sentence, style="bold"))
        for note in card.notes:
            console.print(note)
        for name, text in card.reasons:
            print_indented(console, f"Not met: {name}. {text}")
        if verdict.next_runs:
            console.print("Cheapest next runs:")
            for runs in verdict.next_runs:
                print_indented(console, runs.change)
                print_indented(console, told_runs(runs), 4)


def print_sweep(console: Console, summary: StudySummary) -> None:
    """Of a study that compares nothing the best configurations, how sure their order is, and what
    would make it a comparison; nothing before a trial is complete."""
    from study.report.sweep import comparison_hint, how_sure, judged_by, shown

    for ranking in summary.rankings:
        console.print(f"\n{how_sure(ranking)}")
        for one in ranking.ranked[: shown(summary.rankings, ranking)]:
            spec = one.trial.spec
            values = ", ".join(f"{name} {short(v)}" for name, v in spec.hyperparameters.items())
            found = f"validation {one.loss:.4f}{told_metrics(one.metrics)}"
            print_indented(console, f"{spec.trial_id}  {found}  {values}")
    if summary.rankings:
        console.print(f"\n{judged_by(summary)}\n{comparison_hint(summary)}")


def short(value: object) -> str:
    """A hyperparameter's value."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def told_runs(runs: NextRuns) -> str:
    """What further runs cost and do, in one line."""
    parts = [runs.reason, counted(runs.trials, "trial")]
    if runs.device_seconds is not None:
        parts.append(f"about {duration(runs.device_seconds)} of device time")
    if runs.half_width is not None and runs.expected_half_width is not None:
        parts.append(f"interval +/- {runs.half_width:.3f} to {runs.expected_half_width:.3f} nats")
    if runs.power is not None:
        parts.append(f"chance of a verdict {percent(runs.power)}")
    return "; ".join(parts)
