"""Scalars are those of YAML 1.2, and what is written is read back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.basics.errors import ConfigError
from study.basics.yaml_source import dump_yaml, parse_yaml


def read(text: str) -> Any:
    return parse_yaml(text, "study.yaml").data


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1:30.5", "1:30.5"),
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("true", True), ("FALSE", False),
        ("1e-5", 1e-5), ("5E3", 5000.0), (".5", 0.5), ("1.", 1.0), ("-2", -2), ("+3", 3),
        ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"), ("1_000", "1_000"), ("0", 0), ("0.5", 0.5),
        ("1910-03-01", "1910-03-01"), ("~", None), ("null", None), ("", None), ("=", "="),
        (".inf", math.inf),
    ],
)  # fmt: skip
def test_a_scalar_is_what_yaml_1_2_says(written: str, value: Any) -> None:
    found = read(f"key: {written}")["key"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("written", ["020", "-007", "00"])
def test_a_leading_zero_is_refused_with_its_line(written: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"a: 1\nkey: {written}\n")
    assert "(line 2)" in str(caught.value) and "has a leading zero" in str(caught.value)
    assert read(f"key: '{written}'")["key"] == written


def test_a_key_that_is_written_twice_is_a_fault_with_both_lines() -> None:
    (fault,) = parse_yaml("a: {b: 1}\nc: 2\na: 3\n", "study.yaml").faults
    assert (fault.path, fault.line) == ("a", 3) and "line 1" in fault.rule


def test_merge_keys_still_merge() -> None:
    assert read("base: &b {x: 1}\nother: {<<: *b, y: 2}")["other"] == {"x": 1, "y": 2}


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    st.sampled_from(["020", "1:30", "no", "1e5", "0o7", "1_0", "~", "<<", "=", "2020-01-01"]),
)  # fmt: skip


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6))
def test_what_is_written_is_read_back(value: Any) -> None:
    assert read(dump_yaml({"key": value}))["key"] == value
