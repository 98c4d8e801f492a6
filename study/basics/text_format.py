"""Numbers as people read them, in the terminal and in reports alike."""

from __future__ import annotations

import math
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """``43 s``, ``7 min 11 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def byte_size(count: float) -> str:
    """``512 B``, ``1.5 MiB``, ``3.2 TiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def percent(probability: float) -> str:
    """A probability. Rounded down, so that no bound seems reached that is not, and never above
    99 %, since no study excludes what it did not vary: ``94 %`` for 0.949, ``< 1 %``."""
    if 0.0 < probability < 0.01:
        return "< 1 %"
    return f"{math.floor(100 * min(probability, 0.99) + 1e-9)} %"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 run``, ``2,000 runs``, ``2 losses`` (with `plural`)."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def metric_title(name: str) -> str:
    """How a classifier's metric is called: ``Accuracy``, ``Macro-F1``."""
    return {"macro_f1": "Macro-F1"}.get(name, name.replace("_", " ").capitalize())


def short_count(value: int) -> str:
    """``1.23 M``, ``7.24 B``, ``950``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def capital(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]
