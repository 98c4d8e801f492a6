"""What the job's Python needs beside Ray, at the versions installed here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from study.basics.database_url import sqlite_path

PACKAGE = "finetune-study"
# The cluster's own stays: Ray refuses an environment that replaces it.
_OF_THE_CLUSTER = frozenset({"ray"})
# Follow from torch's own version, and differ between machines with and without a GPU.
_OF_TORCH = ("nvidia-", "cuda-", "triton")
_POSTGRESQL_DRIVERS = ("psycopg", "psycopg-binary", "psycopg2", "psycopg2-binary")


def pinned_requirements(database: str | None = None, trackers: Sequence[str] = ()) -> list[str]:
    """``name==version`` of everything this package needs, directly or not, sorted.

    Args:
        database: the study's storage URL; a server's adds the drivers that are installed here.
        trackers: of the study; each is an extra of this package.
    """
    found = dict[str, str]()
    walk = [(PACKAGE, frozenset(trackers))]
    if database is not None and sqlite_path(database) is None:
        walk += [(name, frozenset[str]()) for name in _POSTGRESQL_DRIVERS]
    done = set[tuple[str, frozenset[str]]]()
    while walk:
        name, extras = walk.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # needed on other systems only, or not chosen here
            continue
        if name != PACKAGE and name not in _OF_THE_CLUSTER and not name.startswith(_OF_TORCH):
            # Builds such as 2.13.0+cpu are not in the registry.
            found[name] = f"{name}=={Version(installed.version).public}"
        walk += _needs(installed, extras)
    return [found[name] for name in sorted(found)]


def _needs(installed: Distribution, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """What a distribution with some of its extras requires: names and their extras."""
    of_the_cluster = canonicalize_name(installed.metadata["Name"]) in _OF_THE_CLUSTER
    needs = []
    for requirement in map(Requirement, installed.requires or ()):
        marker, name = requirement.marker, canonicalize_name(requirement.name)
        if marker is None:
            wanted = not of_the_cluster  # what Ray cannot do without is there
        else:
            wanted = any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        if wanted:
            # A cluster that takes jobs has Ray's `default`.
            taken = requirement.extras - ({"default"} if name in _OF_THE_CLUSTER else set())
            needs.append((str(name), frozenset(taken)))
    return needs
