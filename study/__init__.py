"""Full fine-tuning or LIFT? Studies that answer for a model, its data and a budget.

from study import load_config, plan_study, run_study, open_study

config = load_config("study.yaml")
print(plan_study(config).warnings)
results = run_study(config)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.api import (
        evaluations_frame,
        open_study,
        plan_study,
        read_study,
        run_study,
        show,
        trials_frame,
    )
    from study.config import load_config

__all__ = [
    "evaluations_frame", "load_config", "open_study", "plan_study", "read_study", "run_study",
    "show", "trials_frame",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Imported on first use: `study --help` must not wait for Optuna, and workers need none of it.
    if name not in __all__:
        raise AttributeError(f"module 'study' has no attribute {name!r}")
    from study import api

    return getattr(api, name)
