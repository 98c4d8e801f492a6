"""The `study` command: verbs, parsing and printing only.

Import `main` alone.
It decides nothing, and nothing heavy is imported here: `study --help` answers before torch or Ray
would be loaded.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script: whatever happens ends in words and an exit code."""
    from study.cli.failures import tell, unread
    from study.cli.output import guarded_streams

    code: object
    with guarded_streams():
        try:
            from study.cli.app import app

            code = app(prog_name="study", standalone_mode=False)
            sys.stdout.flush()
        except SystemExit as ended:  # by Typer or Rich, whose output nobody reads any more
            code = ended.code
        except BaseException as error:
            code = tell(error)
        unread()
    sys.exit(code if isinstance(code, int) else None)
