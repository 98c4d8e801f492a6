"""The one place that takes a database URL apart: what may be one is the same for everybody.

SQLAlchemy takes a fifth of a second to import, so only who has a URL does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from study.basics.errors import UserError
from study.basics.urls import without_password

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_DRIVERS = {"sqlite": ("", "pysqlite"), "postgresql": ("", "psycopg", "psycopg2")}
"""Those that wait for an answer and know libpq's options; the first is SQLAlchemy's choice."""
_REMEDY = (
    "E.g. `postgresql://user@host:5432/study` or `sqlite:///study.db`; null: a file in the "
    "results folder."
)
_NAME_A_FILE = "Name a file: `sqlite:///study.db`, or `sqlite:////folder/study.db`."


class DatabaseUrlError(UserError):
    """A text that is no database's URL.

    Attributes:
        shown: the text without its password.
        rule: what it breaks.
        remedy: what to do about it.
    """

    def __init__(self, shown: str, rule: str, remedy: str) -> None:
        super().__init__(f"{shown}: {rule} {remedy}")
        self.shown, self.rule, self.remedy = shown, rule, remedy


def parse_database_url(text: str) -> URL:
    """A URL of an SQLite file or a PostgreSQL database, taken apart.

    Raises:
        DatabaseUrlError: it is none.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        hidden = re.sub(r":.*@", ":***@", without_password(text))
        raise DatabaseUrlError(hidden, "not a database URL.", _REMEDY) from None
    broken = _broken_rule(url)
    if text.partition("?")[0].count("@") > 1 and not url.drivername.startswith("sqlite"):
        # SQLAlchemy would take what follows the first one for the host, and tell it.
        rule = "an `@` in a user's name or password is written %40."
        broken = rule, "Better leave the password out and set PGPASSWORD."
    if broken is not None:
        raise DatabaseUrlError(without_password(text), *broken)
    return url


def sqlite_path(text: str) -> Path | None:
    """The file of an SQLite URL, None for a server's.

    Raises:
        DatabaseUrlError: it is neither.
    """
    url = parse_database_url(text)
    return Path(url.database or "") if url.drivername.startswith("sqlite") else None


def file_url(path: Path) -> str:
    """The URL of an SQLite file, whatever characters its path has."""
    return f"sqlite:///{quote(str(path))}"


def _broken_rule(url: URL) -> tuple[str, str] | None:
    """Rule and remedy."""
    backend, _, driver = url.drivername.partition("+")
    if backend not in _DRIVERS:
        return f"must be a sqlite or postgresql URL, not `{backend}`.", _REMEDY
    if driver not in _DRIVERS[backend]:
        known = " or ".join(f"`{name}`" for name in _DRIVERS[backend] if name)
        return f"the driver must be {known}, not `{driver}`.", f"Or leave it out: `{backend}://`."
    if backend == "postgresql":
        return None if url.database else ("the URL names no database.", _REMEDY)
    if url.host:
        return "the path of an SQLite file stands after three slashes.", _NAME_A_FILE
    if url.database in (None, "", ":memory:"):
        return "a database in memory is lost when the study stops.", _NAME_A_FILE
    if str(url.database).startswith("file:"):
        return "an SQLite file is named by its path, not by a `file:` URI.", _NAME_A_FILE
    if url.query and not _only_a_timeout(url):
        return "the one option of an SQLite URL is `timeout`, in seconds.", "Leave the others out."
    return None


def _only_a_timeout(url: URL) -> bool:
    try:
        return url.query.keys() == {"timeout"} and 0 <= float(str(url.query["timeout"])) <= 3600
    except ValueError:
        return False
