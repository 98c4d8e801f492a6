"""Where text goes: what is for people to the terminal, what libraries say to a log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.errors import UserError
from study.text_format import metric_title
from study.urls import LogFormatter


@contextmanager
def libraries_to(path: Path) -> Iterator[Console]:
    """Send file descriptors 1 and 2 to `path` and yield a console on the real terminal.

    Redirecting the descriptors, not just `sys.stdout`, also catches what Ray's C++ parts and
    forked processes print.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.getLogger().addHandler(handler)
    try:
        yield Console(file=terminal, highlight=False, markup=False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        logging.getLogger().removeHandler(handler)
        for saved, descriptor in zip(kept, (1, 2), strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        terminal.close()


@contextmanager
def written_to(place: object) -> Iterator[None]:
    """Says of a file that cannot be written that ``--output`` named it.

    Raises:
        UserError: the block met an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--output {place}: cannot be written ({error.strerror or error}). Name another place."
        ) from error


def print_facts(console: Console, facts: dict[str, str]) -> None:
    """Names and values, one beside the other."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(value))
    console.print(table)


def told_metrics(metrics: Mapping[str, float]) -> str:
    """What follows a classifier's loss, ``, accuracy 0.9312, macro-F1 0.8750``; empty without."""
    return "".join(f", {_lower(metric_title(k))} {v:.4f}" for k, v in metrics.items())


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]
