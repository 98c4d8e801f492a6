"""Best configurations as other tools read them, a module for each tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from study.basics.errors import UserError
from study.reuse.formats import axolotl, deepspeed, llamafactory, transformers
from study.reuse.formats.base import CannotExpressError, Export, comments
from study.reuse.formats.provenance import provenance
from study.strategies import STRATEGIES, Strategy, arm_label

__all__ = ["FORMATS", "Export", "export"]


def _to_study(content: Mapping[str, Any]) -> Export:
    """Everything, as `study train` reads it; `yaml.safe_load` gives `content` back."""
    head = [
        *provenance(content),
        "Losses are in nats. Steps and epochs are those of one run.",
    ]
    body = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
    return Export(comments(head) + body, "best.yaml")


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        write: the configuration of a strategy that names the format in its `exports`.
        beside: what it has, said to whoever wants another strategy; empty where it has all.
    """

    write: Callable[[Mapping[str, Any]], Export]
    beside: str = ""


FORMATS = {
    "study": Format(_to_study),
    "deepspeed": Format(deepspeed.to_deepspeed, deepspeed.BESIDE),
    "transformers": Format(transformers.to_transformers, transformers.BESIDE),
    "axolotl": Format(axolotl.to_axolotl, axolotl.BESIDE),
    "llamafactory": Format(llamafactory.to_llamafactory, llamafactory.BESIDE),
}
"""By their names."""


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
        return _written(format, content)
    except CannotExpressError as error:
        told = f"--format {format}: {error} {_instead(content, format)}"
        raise UserError(told) from None


def _written(format: str, content: Mapping[str, Any]) -> Export:
    """Only for a strategy that names the format: no other is written as if it were one that does.

    Raises:
        CannotExpressError: that, or what the format lacks.
    """
    arm, found = str(content["arm"]), FORMATS[format]
    able = STRATEGIES[arm].exports if arm in STRATEGIES else Strategy.exports
    if format not in able:
        raise CannotExpressError(f"{found.beside}, so it cannot express {arm_label(arm)}.")
    return found.write(content)


def _instead(content: Mapping[str, Any], format: str) -> str:
    """What can express the configuration: asked of each, so that none is named that refuses."""
    able = [name for name in FORMATS if name != format and _expresses(name, content)]
    named = [f"{name} (with `study train`)" if name == "study" else name for name in able]
    *others, last = named
    text = f"Use --format {', '.join(others)} or {last}" if others else f"Use --format {last}"
    arms = [a for a in (content.get("study") or {}).get("arms") or () if a != content["arm"]]
    text += "".join(
        f", or --arm {arm}" for arm in arms if _expresses(format, {**content, "arm": arm})
    )
    return f"{text}."


def _expresses(format: str, content: Mapping[str, Any]) -> bool:
    try:
        _written(format, content)
    except CannotExpressError:
        return False
    return True
