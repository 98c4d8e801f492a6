"""Escaping for Markdown."""

from __future__ import annotations

import pytest

from study.report.base import Snippet, column_of
from study.report.markdown import escape_markdown, fenced


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("learning_rate", "learning_rate"),
        ("__init__", "\\_\\_init\\_\\_"),
        ("a | b", "a \\| b"),
        ("<b> & [x](y)", "&lt;b&gt; &amp; \\[x\\](y)"),
        ("two\n\nlines", "two lines"),
        ("# title", "\\# title"),
        ("1. first", "1\\. first"),
        ("- item", "\\- item"),
        ("-0.012", "-0.012"),
        (4.5, "4.5"),
    ],
)
def test_markdown_shows_text_as_it_is(text: object, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_a_fence_is_longer_than_what_it_holds() -> None:
    assert fenced(Snippet("x", "a: 1\n")) == "```yaml\na: 1\n```"
    assert fenced(Snippet("x", "a: '````'")).startswith("`````yaml\n")


def test_a_column_of_numbers_has_one_format() -> None:
    assert column_of([2e-5, 0.01]) == ("2.00e-05", "1.00e-02")
    assert column_of([0.05, 1.0]) == ("0.050", "1.000")
    assert column_of([4, True, None, "a"]) == ("4", "true", "\u2013", "a")
