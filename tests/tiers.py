"""Which tests run when; a plugin of `tests/conftest.py`. `tests/README.md` has the tiers.

Every test has one tier, its marker; a test without one gets `default`. So `-m default`, what
`pytest` alone means, and `-m "default or ray"` need no list of what to leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

TIERS = ("default", "ray", "exhaustive", "network", "cluster", "chaos", "browser", "gpu")


@pytest.hookimpl(tryfirst=True)  # before `-m` looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        found = {mark.name for mark in item.iter_markers()} & {*TIERS}
        if len(found) > 1:
            raise pytest.UsageError(f"{item.nodeid} has several tiers: {', '.join(sorted(found))}")
        if not found:
            item.add_marker("default")


def tier_of(item: pytest.Item) -> str:
    return next(tier for tier in TIERS if item.get_closest_marker(tier))


def tiered(cases: Iterable[Any], tier: Callable[..., str]) -> list[Any]:
    """Cases of a parametrized test, each in a tier of its own.

    Args:
        cases: single values, or tuples of several parameters' values.
        tier: of a case, from its values.
    """
    found = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marker = tier(*values)
        marks = () if marker == "default" else getattr(pytest.mark, marker)
        found.append(pytest.param(*values, marks=marks))
    return found


def thinned(cases: Iterable[Any], usual: Callable[..., bool]) -> list[Any]:
    """`tiered`: what is not usual is exhaustive."""
    return tiered(cases, lambda *values: "default" if usual(*values) else "exhaustive")


def wanted(request: pytest.FixtureRequest, *names: str) -> list[Any]:
    """The cases that this session's tests of a module ask for, once each and in order: what a
    fixture that runs them all at once has to run.

    Args:
        request: of a fixture of that module's scope.
        names: parameters of its tests. One: its values; several: tuples.
    """
    found: dict[Any, None] = {}
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        if item.path == request.path and callspec and {*names} <= callspec.params.keys():
            values = tuple(callspec.params[name] for name in names)
            found[values if len(names) > 1 else values[0]] = None
    return list(found)
