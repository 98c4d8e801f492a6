"""How a verdict's numbers are said: probabilities, intervals, shares."""

from __future__ import annotations

import operator

from study.analysis.cells.base import Interval
from study.analysis.rules import LEANING, SURE
from study.basics.text_format import percent


def likelihood(probability: float) -> str:
    """``very likely`` from 95 % on, ``likely`` from 80 % on, else ``uncertain``."""
    if probability >= SURE:
        return "very likely"
    return "likely" if probability >= LEANING else "uncertain"


def sure(probability: float) -> str:
    """Words and number: ``very likely (97 %)``."""
    return f"{likelihood(probability)} ({percent(probability)})"


def span(interval: Interval, form: str, unit: str = "") -> str:
    """The 95 % interval in words, ``95 % interval +0.012 to +0.050``; empty without one."""
    if interval.low is None or interval.high is None:
        return ""
    return f"95 % interval {interval.low:{form}}{unit} to {interval.high:{form}}{unit}"


def with_span(text: str, interval: Interval, form: str, unit: str = "") -> str:
    """`text` with `span` in brackets."""
    found = span(interval, form, unit)
    return f"{text} ({found})" if found else text


def ratio_span(ratio: Interval, form: str) -> str:
    """`span` of a ratio; of one that may be anything, that it may."""
    return "too few runs for an interval" if ratio.may_be_any_ratio else span(ratio, form)


def with_ratio_span(text: str, ratio: Interval, form: str) -> str:
    """`text` with `ratio_span` in brackets."""
    found = ratio_span(ratio, form)
    return f"{text} ({found})" if found else text


def directed(interval: Interval, more: str, less: str, form: str, unit: str) -> str:
    """A change with its direction in words, e.g. ``3.1 % lower (95 % interval 1.2 % to 4.9 %)``.

    Args:
        more, less: how a positive and a negative value are said.
    """
    if interval.value >= 0:
        return with_span(f"{interval.value:{form}}{unit} {more}", interval, form, unit)
    turned = Interval(interval.value, interval.high, interval.low).mapped(operator.neg)
    return with_span(f"{turned.value:{form}}{unit} {less}", turned, form, unit)
