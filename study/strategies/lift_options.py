"""LIFT's options that are words or lists.

A search space holds single values only, so each list may be written as text there; a study file
takes both forms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from study.basics.errors import ConfigError, Fault
from study.basics.yaml_source import suggestion

ALWAYS_ACTIVE = ("head", "final_norm", "last_K_blocks")
_NUMBER = re.compile(r"[0-9]{1,5}")
_LAST_BLOCKS = re.compile(r"last_([1-9][0-9]{0,4})_blocks?")

# The same, and what a study file may have beside, as JSON Schemas.
_GROUP, _BETWEEN = "0*[1-9][0-9]*", r"[,\s]+"
_PART = "(head|final_norm|last_[1-9][0-9]*_blocks?)"
GROUPS_TEXT = rf"^[,\s]*{_GROUP}({_BETWEEN}{_GROUP})*[,\s]*$"
ALWAYS_ACTIVE_TEXT = rf"^[,\s]*(none|{_PART}({_BETWEEN}{_PART})*)?[,\s]*$"
GROUPS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
        {"type": "string", "pattern": GROUPS_TEXT},
        {"type": "null"},
    ]
}
ALWAYS_ACTIVE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "pattern": f"^{_PART}$"},
         "uniqueItems": True},
        {"const": ["none"]},
        {"type": "string", "pattern": ALWAYS_ACTIVE_TEXT},
    ]
}  # fmt: skip


def read_groups(value: Sequence[int] | str) -> tuple[int, ...]:
    """Blocks per group from the top: ``[2, 4, 6]`` or ``"2, 4, 6"``.

    Raises:
        ConfigError: not a list of whole numbers of at least 1.
    """
    sizes: list[Any] = [
        int(entry) if isinstance(entry, str) and _NUMBER.fullmatch(entry) else entry
        for entry in _words(value)
    ]
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        rule = "must list the blocks of each group, whole numbers of at least 1."
        raise _error("groups", value, rule, 'Write e.g. [2, 4, 6], in a search space "2, 4, 6".')
    return tuple(sizes)


def read_always_active(value: Sequence[str] | str) -> tuple[str, ...]:
    """What trains in every phase: ``[head, last_2_blocks]``, ``"head, last_2_blocks"`` or, for
    nothing, ``[]`` or ``"none"``.

    Raises:
        ConfigError: an entry that is not one of `ALWAYS_ACTIVE`, or an entry written twice.
    """
    entries = _words(value)
    if entries == ["none"]:
        return ()
    known: list[str] = []
    for entry in entries:
        if not isinstance(entry, str) or not _can_be_always_active(entry):
            rule = f"`{entry}` cannot be always active."
            remedy = suggestion(str(entry), ALWAYS_ACTIVE) + " K is a number: last_2_blocks."
            raise _error("always_active", value, rule, remedy)
        if entry in known:
            rule = f"`{entry}` is listed twice."
            raise _error("always_active", value, rule, "Keep one of them.")
        known.append(entry)
    return tuple(known)


def last_blocks(always_active: Sequence[str]) -> int:
    """K of ``last_K_blocks``, 0 where there is none."""
    found = [_LAST_BLOCKS.fullmatch(entry) for entry in always_active]
    return max((int(match[1]) for match in found if match), default=0)


def _can_be_always_active(entry: str) -> bool:
    return entry in ("head", "final_norm") or _LAST_BLOCKS.fullmatch(entry) is not None


def _words(value: object) -> list[object]:
    if isinstance(value, str):
        return [word for word in re.split(r"[,\s]+", value) if word]
    return list(value) if isinstance(value, Sequence) else [value]


def _error(option: str, value: object, rule: str, remedy: str) -> ConfigError:
    return ConfigError("lift", [Fault(option, None, value, rule, remedy)])
