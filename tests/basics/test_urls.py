"""Passwords in URLs are found, and left out."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.basics.urls import (
    has_password,
    settings_with_password,
    without_password,
    without_passwords,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@db/s", "postgresql://me:***@db/s"),
        ("postgresql://me:a/b@db/s", "postgresql://me:***@db/s"),
        ("postgresql://db/s?password=hunter2&x=1", "postgresql://db/s?password=***&x=1"),
        ("proxy=http://me:pw@host:3128", "proxy=http://me:***@host:3128"),
        ("postgresql://me:p@ss@db/s", "postgresql://me:***@db/s"),
        ("postgresql://me:p/a@s/s@db/s", "postgresql://me:***@db/s"),
        ("postgresql://me:p%40%2Fs@db/s", "postgresql://me:***@db/s"),
        ("s3://ID:se/cr+et@bucket/study", "s3://ID:***@bucket/study"),
        ("postgresql://db/s?SSLPassword=x&a=1", "postgresql://db/s?SSLPassword=***&a=1"),
        ("https://host/data?api_key=x", "https://host/data?api_key=***"),
        # What only SQLAlchemy makes out.
        ("postgresql://me:my pass@db/s", "postgresql://***"),
        ("postgresql+psycopg://db/s?pass%77ord=x", "postgresql+psycopg://***"),
        ("postgresql:///s?host=/tmp&password=a b", "postgresql://***"),
    ],
)
def test_a_password_is_found_and_hidden(text: str, shown: str) -> None:
    assert has_password(text)
    assert without_password(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@db:5432/s", "s3://bucket/study", "http://host:8265", "/a:b@c", "",
        "postgresql://me:***@db/s?password=***", "postgresql:///s?host=/tmp&options=-c%20x",
        "see http://localhost:8265 and write to me@here", "{question}?password={answer}",
        "sqlite:////a/study.db?timeout=30",
    ],
)  # fmt: skip
def test_what_has_none_stays_as_it_is(text: str) -> None:
    assert not has_password(text)
    assert without_password(text) == text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(password=st.text(st.characters(codec="ascii", min_codepoint=33), min_size=8))
def test_no_password_is_left_however_it_is_written(password: str) -> None:
    for written in {password, quote(password, safe="")}:
        url = f"postgresql://me:{written}@db.example/s"
        assert has_password(url)
        assert written not in without_password(url)
        assert written not in without_password(f'error at "{url}": no route to host')


def test_plain_values_lose_theirs_at_any_depth() -> None:
    url, shown = "postgresql://me:pw@db/s", "postgresql://me:***@db/s"
    values = {"a": [url, {"b": url, "c": 1, "d": None}], "e": 0.5}
    assert without_passwords(values) == {"a": [shown, {"b": shown, "c": 1, "d": None}], "e": 0.5}
    assert list(settings_with_password(values)) == ["a.0", "a.1.b"]
