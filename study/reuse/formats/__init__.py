"""Best configurations as other tools read them, a module for each tool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from study.basics.errors import UserError
from study.basics.yaml_source import dump_yaml
from study.reuse.best_file import Best
from study.reuse.formats import axolotl, deepspeed, llamafactory, transformers
from study.reuse.formats.base import CannotExpressError, Export, comments
from study.reuse.formats.provenance import provenance
from study.strategies import STRATEGIES, Strategy, arm_label

__all__ = ["FORMATS", "Export", "export"]


def _to_study(best: Best) -> Export:
    """Everything, as `study train` reads it; `yaml.safe_load` gives `best` back."""
    head = [
        *provenance(best),
        "Losses are in nats. Steps and epochs are those of one run.",
    ]
    return Export(comments(head) + dump_yaml(best.to_dict()), "best.yaml")


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        write: the configuration of a strategy that names the format in its `exports`.
        beside: what it has, said to whoever wants another strategy; empty where it has all.
    """

    write: Callable[[Best], Export]
    beside: str = ""


FORMATS = {
    "study": Format(_to_study),
    "deepspeed": Format(deepspeed.to_deepspeed, deepspeed.BESIDE),
    "transformers": Format(transformers.to_transformers, transformers.BESIDE),
    "axolotl": Format(axolotl.to_axolotl, axolotl.BESIDE),
    "llamafactory": Format(llamafactory.to_llamafactory, llamafactory.BESIDE),
}
"""By their names."""


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
        return _written(format, best)
    except CannotExpressError as error:
        told = f"--format {format}: {error} {_instead(best, format)}"
        raise UserError(told) from None


def _written(format: str, best: Best) -> Export:
    """Only for a strategy that names the format: no other is written as if it were one that does.

    Raises:
        CannotExpressError: that, or what the format lacks.
    """
    able = STRATEGIES[best.arm].exports if best.arm in STRATEGIES else Strategy.exports
    if format not in able:
        beside = FORMATS[format].beside
        raise CannotExpressError(f"{beside}, so it cannot express {arm_label(best.arm)}.")
    return FORMATS[format].write(best)


def _instead(best: Best, format: str) -> str:
    """What can express the configuration: asked of each, so that none is named that refuses."""
    able = [name for name in FORMATS if name != format and _expresses(name, best)]
    named = [f"{name} (with `study train`)" if name == "study" else name for name in able]
    *others, last = named
    text = f"Use --format {', '.join(others)} or {last}" if others else f"Use --format {last}"
    others = [arm for arm in best.study.arms if arm != best.arm]
    text += "".join(
        f", or --arm {arm}"
        for arm in others
        if _expresses(format, best.model_copy(update={"arm": arm}))
    )
    return f"{text}."


def _expresses(format: str, best: Best) -> bool:
    try:
        _written(format, best)
    except CannotExpressError:
        return False
    return True
