"""What a study answers, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from study.cli.output import Console, chance
from study.text_format import duration

if TYPE_CHECKING:
    from study.analysis import StudySummary
    from study.analysis.verdict_records import NextRuns
    from study.results import StudyResults


def print_verdicts(console: Console, results: StudyResults, summary: StudySummary) -> None:
    """A verdict for each dataset size that was asked about; for a study that compares nothing,
    what it found."""
    from study.analysis import found_sentences
    from study.report import setting_of, verdict_card

    if not summary.verdicts:
        first, second = found_sentences(summary)
        console.print(Text(first, style="bold"))
        console.print(second)
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
            console.print(Padding(Text(f"Not met: {name}. {text}"), (0, 0, 0, 2), expand=False))
        if verdict.next_runs:
            console.print("Cheapest next runs:")
            for runs in verdict.next_runs:
                console.print(Padding(Text(runs.change), (0, 0, 0, 2), expand=False))
                console.print(Padding(Text(told_runs(runs)), (0, 0, 0, 4), expand=False))


def told_runs(runs: NextRuns) -> str:
    """What further runs cost and do, in one line."""
    parts = [runs.reason, f"{runs.trials:,} trials"]
    if runs.device_seconds is not None:
        parts.append(f"about {duration(runs.device_seconds)} of device time")
    if runs.half_width is not None and runs.expected_half_width is not None:
        parts.append(f"interval +/- {runs.half_width:.3f} to {runs.expected_half_width:.3f} nats")
    if runs.power is not None:
        parts.append(f"chance of a verdict {chance(runs.power)}")
    return "; ".join(parts)
