"""Numbers as people read them."""

from __future__ import annotations

import pytest

from study.basics.text_format import byte_size, counted, duration, listed, percent, short_count


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


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "0 %"), (0.004, "< 1 %"), (0.0119, "1 %"), (0.29, "29 %"), (0.949999, "94 %"),
     (0.95, "95 %"), (0.9999, "99 %"), (1.0, "99 %")],
)  # fmt: skip
def test_probabilities_are_rounded_down_and_never_certain(probability: float, text: str) -> None:
    assert percent(probability) == text


def test_one_of_a_kind_is_no_plural() -> None:
    assert [counted(n, "confirm seed") for n in (0, 1, 2000)] == [
        "0 confirm seeds", "1 confirm seed", "2,000 confirm seeds",
    ]  # fmt: skip
    assert [listed(list("abc"[:n])) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
