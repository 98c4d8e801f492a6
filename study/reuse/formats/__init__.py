"""Best configurations as other tools read them, a module for each tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from study.basics.errors import UserError
from study.reuse.formats.axolotl import to_axolotl
from study.reuse.formats.base import CannotExpressError, Export, comments
from study.reuse.formats.deepspeed import to_deepspeed
from study.reuse.formats.llamafactory import to_llamafactory
from study.reuse.formats.provenance import provenance
from study.reuse.formats.transformers import to_transformers

__all__ = ["FORMATS", "Export", "export"]


def _to_study(content: Mapping[str, Any]) -> Export:
    """Everything, as `study train` reads it; `yaml.safe_load` gives `content` back."""
    head = [
        *provenance(content),
        "Losses are in nats. Steps and epochs are those of one run.",
    ]
    body = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
    return Export(comments(head) + body, "best.yaml")


FORMATS: dict[str, Callable[[Mapping[str, Any]], Export]] = {
    "study": _to_study,
    "deepspeed": to_deepspeed,
    "transformers": to_transformers,
    "axolotl": to_axolotl,
    "llamafactory": to_llamafactory,
}
"""Exporters by the name of the format."""


def export(content: Mapping[str, Any], format: str) -> Export:
    """A best configuration's content in another tool's terms.

    Args:
        content: of a `BestConfiguration`.
        format: one of `FORMATS`.

    Raises:
        UserError: an unknown format, or one that cannot express this configuration, with the
            reason and what can.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Use one of: {', '.join(FORMATS)}.")
    try:
        return FORMATS[format](content)
    except CannotExpressError as error:
        told = f"--format {format}: {error} {_instead(content, format)}"
        raise UserError(told) from None


def _instead(content: Mapping[str, Any], format: str) -> str:
    """What can express the configuration: asked of each, so that none is named that refuses."""
    able = [name for name in FORMATS if name != format and _expresses(name, content)]
    named = [f"{name} (with `study train`)" if name == "study" else name for name in able]
    *others, last = named
    text = f"Use --format {', '.join(others)} or {last}" if others else f"Use --format {last}"
    both = {"full", "lift"} <= set((content.get("study") or {}).get("arms") or ())
    if content["arm"] == "lift" and both and _expresses(format, {**content, "arm": "full"}):
        text += ", or --arm full"
    return f"{text}."


def _expresses(format: str, content: Mapping[str, Any]) -> bool:
    try:
        FORMATS[format](content)
    except CannotExpressError:
        return False
    return True
