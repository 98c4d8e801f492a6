"""What each tracker needs installed. No Ray in here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from study.basics.errors import UserError

MODULES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""The package that its client is in, by the tracker's name in a study file."""


def check_trackers(trackers: Sequence[str]) -> None:
    """Before anything starts.

    Raises:
        UserError: a package is missing; says how to install it.
    """
    missing = [name for name in trackers if find_spec(MODULES[name]) is None]
    if missing:
        raise UserError(
            f"tracking: {' and '.join(MODULES[name] for name in missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed here. Install with `pip install "
            f"'finetune-study[{','.join(missing)}]'`, or take {' and '.join(missing)} out of the "
            "study file."
        )
