"""Passwords in URLs are found, and left out."""

from __future__ import annotations

import pytest

from study.urls import has_password, without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@db/s", "postgresql://me:***@db/s"),
        ("postgresql://me:a/b@db/s", "postgresql://me:***@db/s"),
        ("postgresql://db/s?password=hunter2&x=1", "postgresql://db/s?password=***&x=1"),
        ("proxy=http://me:pw@host:3128", "proxy=http://me:***@host:3128"),
    ],
)
def test_a_password_is_found_and_hidden(text: str, shown: str) -> None:
    assert has_password(text)
    assert without_password(text) == shown


@pytest.mark.parametrize(
    "text", ["postgresql://me@db:5432/s", "s3://bucket/study", "http://host:8265", "/a:b@c", ""]
)
def test_what_has_none_stays_as_it_is(text: str) -> None:
    assert not has_password(text)
    assert without_password(text) == text
