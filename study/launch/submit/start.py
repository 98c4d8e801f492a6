"""What a job runs on the cluster: a look at Python's packages, then the study.

Nothing but the standard library is imported here, since that may be all there is: a node's
``python3`` need not be the one that Ray runs in.
"""

from __future__ import annotations

import importlib.util
import os
import sys

_NEEDED = ("ray", "torch", "transformers", "deepspeed", "optuna", "typer")


def main() -> None:
    """Become ``study run FILE``, which then gets the signal that stops the job."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {sys.executable} on the cluster's head lacks {', '.join(missing)}. Start Ray "
            "there with its environment's programs first in PATH, or submit without --no-pip."
        )
    os.execv(sys.executable, [sys.executable, "-m", "study", "run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
