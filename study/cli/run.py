"""`study run`: the run, the report, and the last words."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from study.cli.live import LiveView
from study.cli.output import libraries_to
from study.config import StudyConfig
from study.errors import StudyError, UserError
from study.paths import StudyPaths
from study.records import TrialState
from study.results import StudyResults
from study.text_format import duration


def run_and_report(config: StudyConfig, named: str) -> None:
    """Run a study and say what it found, where the report is, and what to try next.

    Args:
        named: the STUDY argument, for the commands that are suggested.
    """
    from study.api import run_study
    from study.report import write_report

    paths = StudyPaths(config.results_dir)
    started = time.monotonic()
    # A batch system ends a job with SIGTERM, and a shell starts background jobs with SIGINT
    # ignored: both are Ctrl-C here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    print(f"Study {config.name}: results in {paths.root}\nLibrary output goes to {paths.log}")
    with libraries_to(paths.log) as console, LiveView(console) as view:
        try:
            results = run_study(config, view)
        except KeyboardInterrupt:
            console.print(
                f"\nStopped. What has finished is on record; `study run {named}` continues."
            )
            raise
        try:
            report = write_report(results, paths.report)
        except OSError as error:
            raise UserError(
                f"{error.filename or paths.report}: the report cannot be written "
                f"({error.strerror or error}). The study's results are on record. Mend the cause, "
                f"then `study report {named}`; with --output it goes to another folder."
            ) from error
    failed = [r for r in results.trials if r.state is TrialState.FAIL]
    _last_words(named, results, report.html, time.monotonic() - started)
    if failed and len(failed) == len(results.trials):
        raise StudyError(
            f"Every trial failed. The first reason: "
            f"{failed[0].outcome.reason if failed[0].outcome else 'unknown'} "
            f"See `study show {failed[0].spec.trial_id} {named}`."
        )


def _last_words(named: str, results: StudyResults, html: Path, seconds: float) -> None:
    from study.analysis import found_sentences, summarise

    # No markup: names and paths may have brackets in them.
    console = Console(highlight=False, markup=False)
    first, second = found_sentences(summarise(results))
    console.print()
    console.print(Text(first, style="bold"))
    console.print(second)
    took = Text(f"\nTook {duration(seconds)}. Report: ").append(str(html), style="bold")
    console.print(took, soft_wrap=True)
    console.print("\nNext:")
    for command, what in _suggestions(named, results):
        console.print(f"  {command:<34} {what}", soft_wrap=True)


def _suggestions(named: str, results: StudyResults) -> list[tuple[str, str]]:
    arm = results.config.arms.names[-1]
    found = [
        (f"study best {named} --arm {arm}", "its best configuration, as YAML"),
        (f"study status {named}", "every cell at a glance"),
    ]
    if named == "demo":
        found.append(("study init", "a study of your own model and data"))
    return found
