"""What is used of Ray that its documentation does not promise."""

from __future__ import annotations

from study.basics.secrets import is_secret


def keep_from_tune() -> None:
    """Ray Tune copies variables of the driver to the runtime environment of its trials, AWS keys
    among them. Trials here need none: their workers have their nodes' own."""
    from ray.tune.execution import class_cache

    names = class_cache.ENV_VARS_TO_PROPAGATE
    names.difference_update([name for name in names if is_secret(name)])
