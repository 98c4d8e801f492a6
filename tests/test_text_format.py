"""Numbers as people read them."""

from __future__ import annotations

import pytest

from study.text_format import byte_size, duration, short_count


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (42.4, "42 s"), (59.7, "1 min 0 s"), (431.0, "7 min 11 s"),
     (3599.8, "1 h 0 min"), (7500.0, "2 h 5 min"), (90_000, "25 h 0 min")],
)  # fmt: skip
def test_durations_have_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**20, "5.0 MiB"),
     (2.5 * 2**30, "2.5 GiB"), (3 * 2**40, "3.0 TiB"), (4096 * 2**40, "4096.0 TiB")],
)  # fmt: skip
def test_bytes_have_the_unit_that_fits(count: float, text: str) -> None:
    assert byte_size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(950, "950"), (1_234_944, "1.23 M"), (7_240_000_000, "7.24 B"), (999_900, "1 M")],
)
def test_counts_have_three_digits(value: int, text: str) -> None:
    assert short_count(value) == text
