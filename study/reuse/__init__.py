"""Best configurations: select and export."""

from __future__ import annotations

from study.reuse.best import BestConfiguration, best_configuration

__all__ = ["BestConfiguration", "best_configuration"]
