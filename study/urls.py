"""Passwords in URLs: found, and left out of everything that others may read."""

from __future__ import annotations

import re

# A password may hold a slash; a user's name does not.
_IN_PLACE = re.compile(r"(://[^/@\s:]*:)[^@\s]+@")
_AS_OPTION = re.compile(r"([?&]password=)[^&\s]+")


def has_password(text: str) -> bool:
    """Whether there is a URL with a password in a text."""
    return bool(_IN_PLACE.search(text) or _AS_OPTION.search(text))


def without_password(text: str) -> str:
    """The same text with asterisks for the passwords of its URLs."""
    return _AS_OPTION.sub(r"\1***", _IN_PLACE.sub(r"\1***@", text))
