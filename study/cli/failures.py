"""What a command says when it ends otherwise than it should, and its exit code.

A fault of the user's has a sentence of its own. Anything that nobody thought of is one line too:
its traceback goes to a log, and to the terminal with ``--debug``.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

import typer

from study.basics.errors import StudyError, UserError
from study.basics.text_safety import one_line
from study.cli.output import library_log

UNEXPECTED = os.EX_SOFTWARE
"""Exit code of a fault of the program itself."""
_INTERRUPTED = 130
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_debug = False


def show_tracebacks(wanted: bool) -> None:
    """Whether a command that fails prints its traceback: ``study --debug``."""
    global _debug
    _debug = wanted


def tell(error: BaseException) -> int:
    """Say why a command ends, on standard error, and return its exit code."""
    if _debug and not isinstance(error, _UsageError):
        traceback.print_exception(error)
    if isinstance(error, StudyError):
        return _say(str(error), error.exit_code)
    if isinstance(error, _UsageError):
        error.show()  # type: ignore[attr-defined]
        return UserError.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _say("interrupted", _INTERRUPTED)
    if isinstance(error, typer.Abort):  # of a question
        return _say("nobody answered; nothing was done", 1)
    if isinstance(error, BrokenPipeError):  # the reader (head, less) has seen enough
        return 1
    if isinstance(error, OSError) and error.errno is not None:
        # A full disk or a folder without permission is the user's to mend, like a wrong file.
        where = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = ". Free some space, then run the same command again" if full else ""
        return _say(one_line(f"{error.strerror or error}{where}{remedy}"), UserError.exit_code)
    if isinstance(error, MemoryError):
        rule = "this machine's memory is not enough. Free some of it, or give smaller data"
        return _say(f"{rule}.{_kept(error)}", UserError.exit_code)
    what = one_line(f"{type(error).__name__}: {error}")
    shown = what if len(what) <= 200 else f"{what[:200]}..."
    return _say(f"something unexpected happened ({shown}).{_kept(error)}", UNEXPECTED)


def unread() -> None:
    """Drop what standard output cannot take, or the interpreter complains about it as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _say(text: str, code: int) -> int:
    # Further lines are indented: none of them may look like one of the program's own.
    print("error: " + re.sub(r"\n(?=\S)", "\n  ", text), file=sys.stderr)
    return code


def _kept(error: BaseException) -> str:
    """Where the traceback is: in the log of the libraries, or in a file of its own."""
    told = "" if _debug else " `study --debug ...` prints the traceback."
    try:
        path = library_log()
        if path is None:
            descriptor, name = tempfile.mkstemp(prefix="study-", suffix=".log")
            os.close(descriptor)
            path = Path(name)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
            traceback.print_exception(error, file=log)
    except OSError:
        return told
    return f" The traceback is in {path}.{told}"
