"""Whether names of a library that its documentation does not promise are still there."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any


def resolve(name: str) -> Any:
    """What a dotted name stands for; of ``owner:attribute``, an attribute that only instances
    have, its owner.

    Raises:
        AttributeError: it stands for nothing.
    """
    owner, _, attribute = name.partition(":")
    found = _imported(owner)
    if attribute and f".{attribute}" not in inspect.getsource(found):
        raise AttributeError(f"{owner} has no {attribute}")
    return found


def gone(names: Iterable[str]) -> list[str]:
    """Those of `names` that stand for nothing."""
    return [name for name in names if not _stands(name)]


def _stands(name: str) -> bool:
    try:
        resolve(name)
    except AttributeError:
        return False
    return True


def _imported(name: str) -> Any:
    """An object by its dotted name: modules as far as they go, then attributes."""
    first, *rest = name.split(".")
    found: Any = import_module(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        if isinstance(found, ModuleType) and not hasattr(found, part):
            try:
                import_module(path)
            except ImportError as error:
                raise AttributeError(f"{name}: {error}") from error
        found = getattr(found, part)
    return found
