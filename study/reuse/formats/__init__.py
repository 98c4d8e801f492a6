"""Best configurations as other tools read them, a module for each tool."""

from __future__ import annotations

from collections.abc import Callable

from study.basics.errors import UserError
from study.basics.yaml_source import dump_yaml
from study.reuse.best_file import Best
from study.reuse.formats.axolotl import to_axolotl
from study.reuse.formats.base import CannotExpressError, Export, comments
from study.reuse.formats.deepspeed import to_deepspeed
from study.reuse.formats.llamafactory import to_llamafactory
from study.reuse.formats.provenance import provenance
from study.reuse.formats.transformers import to_transformers

__all__ = ["FORMATS", "Export", "export"]


def _to_study(best: Best) -> Export:
    """Everything, as `study train` reads it; `yaml.safe_load` gives `best` back."""
    head = [
        *provenance(best),
        "Losses are in nats. Steps and epochs are those of one run.",
    ]
    return Export(comments(head) + dump_yaml(best.to_dict()), "best.yaml")


FORMATS: dict[str, Callable[[Best], Export]] = {
    "study": _to_study,
    "deepspeed": to_deepspeed,
    "transformers": to_transformers,
    "axolotl": to_axolotl,
    "llamafactory": to_llamafactory,
}
"""Exporters by the name of the format."""


def export(best: Best, format: str) -> Export:
    """A best configuration in another tool's terms.

    Args:
        best: its file.
        format: one of `FORMATS`.

    Raises:
        UserError: an unknown format, or one that cannot express this configuration, with the
            reason and what can.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Use one of: {', '.join(FORMATS)}.")
    try:
        return FORMATS[format](best)
    except CannotExpressError as error:
        told = f"--format {format}: {error} {_instead(best, format)}"
        raise UserError(told) from None


def _instead(best: Best, format: str) -> str:
    """What can express the configuration: asked of each, so that none is named that refuses."""
    able = [name for name in FORMATS if name != format and _expresses(name, best)]
    named = [f"{name} (with `study train`)" if name == "study" else name for name in able]
    *others, last = named
    text = f"Use --format {', '.join(others)} or {last}" if others else f"Use --format {last}"
    both = {"full", "lift"} <= set(best.study.arms)
    if best.arm == "lift" and both and _expresses(format, best.model_copy(update={"arm": "full"})):
        text += ", or --arm full"
    return f"{text}."


def _expresses(format: str, best: Best) -> bool:
    try:
        FORMATS[format](best)
    except CannotExpressError:
        return False
    return True
