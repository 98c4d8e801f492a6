"""`study run`: the run, the report, and the last words."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from study.cli.live import LiveView
from study.cli.output import duration, libraries_to
from study.config import StudyConfig
from study.errors import StudyError
from study.paths import StudyPaths
from study.records import TrialState
from study.results import StudyResults


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
        report = write_report(results, paths.report)
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

    console = Console(highlight=False)
    first, second = found_sentences(summarise(results))
    console.print()
    console.print(Text(first, style="bold"))
    console.print(second)
    console.print(f"\nTook {duration(seconds)}. Report: [bold]{html}[/bold]", soft_wrap=True)
    arm = results.config.arms.names[-1]
    console.print("\nNext:")
    console.print(f"  study best {named} --arm {arm}      its best configuration, as YAML")
    console.print(f"  study status {named}                every cell at a glance")
    if named == "demo":
        console.print("  study init                       a study of your own model and data")
    elif results.config.search.replicates < 3:
        console.print("  search.replicates: 3             in a new study: enough for a verdict")
