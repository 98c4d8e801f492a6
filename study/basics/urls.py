"""Passwords in URLs: found, and left out of everything that others may read.

What is for others (a manifest, a job's files, a store that a dashboard shows, a report, a message)
goes through `without_password` or is refused by `has_password`; both follow the same rule.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

_HIDDEN = "***"
_SECRETS = r"(?:ssl)?password|passwd|pwd|secret(?:_key)?|access_token|auth_token|token|api_?key"
# A password may hold `/` and `@`, a user's name does not: all up to the last `@` is hidden.
_IN_PLACE = re.compile(r"(://[^/@\s:]*:)\S+@")
_AS_OPTION = re.compile(rf"([?&](?:{_SECRETS})=)[^&\s]+", re.IGNORECASE)
_DATABASE = re.compile(r"\s*((?:postgres|mysql|mariadb|oracle|mssql)\w*(?:\+\w+)?)://", re.I)


def has_password(text: str) -> bool:
    """Whether there is a URL with a password in a text."""
    return without_password(text) != text


def without_password(text: str) -> str:
    """The same text with asterisks for the passwords of its URLs."""
    if "://" not in text:  # as nearly every text
        return text
    text = _AS_OPTION.sub(rf"\1{_HIDDEN}", _IN_PLACE.sub(rf"\1{_HIDDEN}@", text))
    scheme = _DATABASE.match(text)
    # What only its own reader sees: a password with a space, an option's name in disguise.
    return f"{scheme[1]}://{_HIDDEN}" if scheme and _in_database(text.strip()) else text


def without_passwords(value: Any) -> Any:
    """Plain values, as JSON has them, each text without passwords."""
    if isinstance(value, Mapping):
        return {name: without_passwords(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords(item) for item in value]
    return without_password(value) if isinstance(value, str) else value


def settings_with_password(value: Any, path: str = "") -> Iterator[str]:
    """The dotted path of every setting below plain values that has a password in it."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from settings_with_password(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from settings_with_password(item, f"{path}.{index}")
    elif isinstance(value, str) and has_password(value):
        yield path


class LogFormatter(logging.Formatter):
    """Lines of a log, tracebacks too, without passwords: what a server's client raises names the
    server."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_password(super().format(record))


def _in_database(url: str) -> bool:
    """Whether SQLAlchemy finds a password in a database's URL."""
    from sqlalchemy.engine import make_url  # a third of a second, for the few who have one
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        return False
    options = (v for k, v in found.query.items() if re.fullmatch(_SECRETS, k, re.IGNORECASE))
    return any(secret and secret != _HIDDEN for secret in (found.password, *options))
