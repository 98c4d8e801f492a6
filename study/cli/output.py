"""Where text goes: what is for people to the terminal, what libraries say to a log file.

Nothing that a terminal would obey passes, whoever wrote it: `guarded_streams` puts a `_Guard` on
standard output and error for as long as a command runs, and `Console` is Rich's own with the same
guard, for Rich's colours have to pass. What is for another program goes through `write_data`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import rich.console
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from study.basics.errors import UserError
from study.basics.text_format import metric_title
from study.basics.text_safety import printable
from study.basics.urls import LogFormatter

_library_log: Path | None = None
"""Where the output of libraries went last."""


class _Guard:
    """A text stream to which only printable text is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _OutputGuard(_Guard):
    """Standard output, from which Rich's consoles take what they write to, past the guard."""

    @property
    def rich_proxied_file(self) -> TextIO:
        return self._stream


class Console(rich.console.Console):  # noqa: TID251
    """Rich's console with plain words: no markup, emoji or highlights in them, and nothing that a
    terminal would obey."""

    def __init__(self, file: TextIO | None = None) -> None:
        super().__init__(file=file, highlight=False, markup=False, emoji=False)

    def render(
        self,
        renderable: rich.console.RenderableType,
        options: rich.console.ConsoleOptions | None = None,
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def open_streams() -> None:
    """Whoever closed standard input, output or error (``study run >&-``) wants nothing from there;
    the next file that is opened, a database perhaps, must not get its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Let only printable text through to standard output and error; a character that the terminal's
    encoding lacks is written as an escape."""
    global _library_log
    _library_log = None
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _OutputGuard(streams[0]), _Guard(streams[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def write_data(text: str) -> None:
    """Print what another program reads: byte for byte, but not into a terminal."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    buffer.write(text.encode("utf-8", "backslashreplace"))
    buffer.flush()


def library_log() -> Path | None:
    """Where the output of libraries went, if to a file."""
    return _library_log


def stopped_by_signals() -> None:
    """A batch system ends a job with SIGTERM, and a shell starts background jobs with SIGINT
    ignored: both are Ctrl-C from here on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@contextmanager
def libraries_to(path: Path) -> Iterator[Console]:
    """Send file descriptors 1 and 2 to `path` and yield a console on the real terminal.

    Redirecting the descriptors, not just `sys.stdout`, also catches what Ray's C++ parts and
    forked processes print.
    """
    global _library_log
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    encoding = sys.stdout.encoding
    terminal = os.fdopen(os.dup(1), "w", 1, encoding=encoding, errors="backslashreplace")
    _library_log = path
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.getLogger().addHandler(handler)
    try:
        yield Console(terminal)
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


def print_indented(console: Console, text: str, by: int = 2) -> None:
    """A paragraph with a margin."""
    console.print(Padding(Text(text), (0, 0, 0, by), expand=False))


def number_table(first: str, *numbers: str, no_wrap: bool = False) -> Table:
    """A table without rows yet: what the numbers are of, then the numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table


def told_metrics(metrics: Mapping[str, float]) -> str:
    """What follows a classifier's loss, ``, accuracy 0.9312, macro-F1 0.8750``; empty without."""
    return "".join(f", {_lower(metric_title(k))} {v:.4f}" for k, v in metrics.items())


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]
