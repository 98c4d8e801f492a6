"""A best configuration as `study best` writes it."""

from __future__ import annotations

from study.reuse.best import BestConfiguration
from study.reuse.formats import export


def written(best: BestConfiguration) -> str:
    """Its file."""
    return export(best.file, "study").text
