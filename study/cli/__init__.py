"""The `study` command: verbs, parsing and printing only.

Nothing heavy is imported here: `study --help` answers before torch or Ray would be loaded.
"""

from __future__ import annotations

import sys

from study.errors import StudyError, UserError


def main() -> None:
    """Entry point of the console script; turns the package's errors into exit codes."""
    from study.cli.app import app

    try:
        app(standalone_mode=True)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        # A full disk or a folder without permission is the user's to mend, like a wrong file.
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        sys.exit(UserError.exit_code)
