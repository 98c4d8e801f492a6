"""`study check`: one line or two per check, as they come."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.status import Status as Spinner
from rich.text import Text

from study.basics.errors import StoreError
from study.basics.owned import claim
from study.basics.paths import StudyPaths
from study.basics.text_format import counted
from study.cli.output import Console, libraries_to, stopped_by_signals
from study.config.load import StudyConfig
from study.orchestration.preflight.base import CheckResult, Status

_STYLES = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "red bold", Status.SKIP: "dim"}
_MARGIN = 21
"""Columns of status and name."""


class CheckView:
    """Prints results as they come; a spinner says what is being looked at. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("", console=console)

    def __enter__(self) -> CheckView:
        if self._console.is_terminal:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()

    def working(self, text: str) -> None:
        self._spinner.update(f"{text} ...")

    def result(self, result: CheckResult) -> None:
        self._console.print(_lines(result, self._console.width), soft_wrap=True)


def _lines(result: CheckResult, width: int) -> Text:
    """Status, name, and what was found beside them, wrapped; then the remedy."""
    style = _STYLES[result.status]
    room = max(20, width - _MARGIN)
    text = Text(f"{result.status.value:<6}", style=style)
    text.append(f"{result.name:<{_MARGIN - 6}}", style="default")
    indent = "\n" + " " * _MARGIN
    found = indent.join(textwrap.wrap(result.found, room))
    text.append(found, style="dim" if result.status is Status.SKIP else "default")
    if result.remedy:
        text.append(f"{indent}fix: ", style=style)
        text.append(indent.join(textwrap.wrap(result.remedy, room - 5)), style="default")
    return text


def check_and_print(config: StudyConfig, named: str, *, probe: bool) -> bool:
    """Check a study and print what was found.

    Args:
        named: the STUDY argument, for the command that is suggested.

    Returns:
        Whether nothing failed.
    """
    from study.orchestration.preflight.study_check import check_study

    stopped_by_signals()
    path = _log_file(config)
    print(f"Checking study {config.name}\nLibrary output goes to {path}")
    with libraries_to(path) as console, CheckView(console) as view:
        results = check_study(config, view, probe=probe)
    Console().print(_summary(results, named))
    return not _count(results)[Status.FAIL]


def _log_file(config: StudyConfig) -> Path:
    """In the results folder, or among temporary files where that cannot be written or is not ours:
    a check of its own says so."""
    path = StudyPaths(config.results_dir).check_log
    try:
        claim(config.results_dir, config.results_url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except (OSError, StoreError):
        descriptor, name = tempfile.mkstemp(prefix="study-check-", suffix=".log")
        os.close(descriptor)
        path = Path(name)
    return path


def _count(results: Sequence[CheckResult]) -> Counter[Status]:
    return Counter(result.status for result in results)


def _summary(results: Sequence[CheckResult], named: str) -> str:
    count = _count(results)
    failed, warned = count[Status.FAIL], count[Status.WARN]
    warnings = f", {counted(warned, 'warning')}" if warned else ""
    if failed:
        names = ", ".join(r.name for r in results if r.status is Status.FAIL)
        return f"\nThe study cannot run: {names} failed{warnings}."
    return f"\nThe study can run{warnings}. Start it with: study run {named}"
