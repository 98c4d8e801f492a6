"""Numbers as people read them, in the terminal and in reports alike."""

from __future__ import annotations


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


def short_count(value: int) -> str:
    """``1.23 M``, ``7.24 B``, ``950``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return str(value)
