"""`study run`: the run, the report, and the last words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from study.basics.errors import StudyError, UserError
from study.basics.owned import claim
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder, is_remote
from study.basics.text_format import duration
from study.cli.live import LiveView
from study.cli.output import Console, libraries_to, stopped_by_signals, written_to
from study.cli.verdicts import print_verdicts
from study.config.load import StudyConfig
from study.protocol.records import TrialState
from study.protocol.results import StudyResults

if TYPE_CHECKING:  # SciPy takes half a second to import
    from study.analysis import StudySummary


def run_and_report(config: StudyConfig, named: str) -> None:
    """Run a study and say what it found, where the report is, and what to try next.

    Args:
        named: the STUDY argument, for the commands that are suggested.
    """
    from study.analysis.summary import summarise
    from study.orchestration.runner import run_study
    from study.report import write_summary

    paths = StudyPaths(config.results_dir)
    started = time.monotonic()
    stopped_by_signals()
    place = config.results_url or paths.root
    claim(paths.root, config.results_url)
    print(f"Study {config.name}: results in {place}\nLibrary output goes to {paths.log}")
    with libraries_to(paths.log) as console, LiveView(console) as view:
        try:
            results = run_study(config, view)
        except KeyboardInterrupt:
            console.print(
                f"\nStopped. What has finished is on record; `study run {named}` continues."
            )
            raise
        try:
            summary = summarise(results)
            report = write_summary(results, summary, paths.report)
            if config.results_url is not None:
                RemoteFolder(config.results_url).upload(paths.report, paths.report.name)
        except OSError as error:
            raise UserError(
                f"{error.filename or paths.report}: the report cannot be written "
                f"({error.strerror or error}). The study's results are on record. Mend the cause, "
                f"then `study report {named}`; with --output it goes to another folder."
            ) from error
    # No markup: names and paths may have brackets in them.
    console = Console()
    console.print()
    print_verdicts(console, results, summary)
    took = Text(f"\nTook {duration(time.monotonic() - started)}. Report: ")
    shown = report.html.relative_to(paths.root).as_posix()
    console.print(took.append(f"{place}/{shown}", style="bold"), soft_wrap=True)
    console.print("\nNext:")
    suggestions = _suggestions(named, results, summary)
    width = max(len(command) for command, _ in suggestions)
    for command, what in suggestions:
        console.print(f"  {command:<{width}}  {what}", soft_wrap=True)
    _refuse_failure(results, named)


def _refuse_failure(results: StudyResults, named: str) -> None:
    """A study of which no trial came through has failed itself."""
    failed = [r for r in results.trials if r.state is TrialState.FAIL]
    if failed and len(failed) == len(results.trials):
        raise StudyError(
            f"Every trial failed. The first reason: "
            f"{failed[0].outcome.reason if failed[0].outcome else 'unknown'} "
            f"See `study show {failed[0].spec.trial_id} {named}`."
        )


def report_and_print(
    results: StudyResults,
    folder: Path | None,
    dataset_sizes: Sequence[int],
    memory_limit_gib: float | None,
) -> None:
    """Print the verdicts and write the report.

    Args:
        folder: to write to; None: in the results folder or, where that is a URL or only a database
            is known, a folder of the study's name in the working directory.
        dataset_sizes, memory_limit_gib: see `summarise`.
    """
    from study.analysis.summary import summarise
    from study.report import write_summary

    summary = summarise(results, dataset_sizes, memory_limit_gib)
    if folder is None and (results.place is None or is_remote(results.place)):
        folder = Path(f"{results.config.name}-report")
    elif folder is None:
        folder = StudyPaths(results.config.results_dir).report
    with written_to(folder):
        paths = write_summary(results, summary, folder)
    console = Console()
    print_verdicts(console, results, summary)
    for path in (paths.html, paths.markdown, paths.json):
        console.print(f"Wrote {path}", soft_wrap=True)


def _suggestions(named: str, results: StudyResults, summary: StudySummary) -> list[tuple[str, str]]:
    favoured = [verdict.arm for verdict in summary.verdicts if verdict.arm is not None]
    ranked = [ranking.arm for ranking in sorted(summary.rankings, key=lambda r: r.best.loss)]
    arm = [*favoured, *ranked, results.config.arms.names[-1]][0]
    found = [
        (f"study best {named} --arm {arm} --output best.yaml", "its best configuration"),
        ("study train best.yaml", "a model, from all the data"),
        (f"study status {named}", "every cell at a glance"),
    ]
    if named == "demo":
        found.append(("study init", "a study of your own"))
    return found
