"""What a report is made of, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MISSING = "\u2013"


@dataclass(frozen=True)
class Column:
    """A table's column; numbers are set flush right with equal-width digits."""

    title: str
    number: bool = False
    wide: bool = False
    """Free text that may wrap; everything else stays on one line."""


ARM_COLUMN, SIZE_COLUMN = Column("Arm"), Column("Examples", number=True)


@dataclass(frozen=True)
class Table:
    """Rows of finished text; each has one string per column."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: file name without suffix, also the prefix of the ids inside the SVG.
        svg: the whole SVG document.
        alt: what it shows, in words, for those who cannot see it.
        caption: how to read it.
    """

    name: str
    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Snippet:
    """Text to copy as it stands, e.g. a configuration in YAML."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """One chapter. `folded` ones are long and start closed on screen."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    snippets: tuple[Snippet, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Tile:
    """One number at a glance; `arm` colours it."""

    label: str
    value: str
    detail: str
    arm: str = ""


@dataclass(frozen=True)
class Contents:
    """A whole report, ready to be laid out.

    Attributes:
        banner: what is missing from an unfinished study, empty when finished.
        headline: what was found, and what stands behind it.
        caveats: what must be known beside the headline.
    """

    title: str
    subtitle: str
    banner: str
    headline: tuple[str, str]
    caveats: tuple[str, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    footer: str


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; `figures` are those the Markdown shows."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...] = field(default=())


def loss(value: float | None, sign: bool = False) -> str:
    """Nats with three decimals; `sign` also writes a plus."""
    if value is None:
        return MISSING
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def between(low: float, high: float, sign: bool = False) -> str:
    """``4.101 to 4.155``."""
    return f"{loss(low, sign)} to {loss(high, sign)}"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return MISSING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Seconds with one decimal below 100, whole ones above."""
    if value is None:
        return MISSING
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def ratio(value: float | None) -> str:
    """Two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def gib(value: int | None) -> str:
    """Bytes as GiB with two decimals."""
    return MISSING if value is None else f"{value / 2**30:.2f}"


def column_of(values: Sequence[object]) -> tuple[str, ...]:
    """One hyperparameter's values, floats in one and the same format so that they line up."""
    floats = [abs(v) for v in values if isinstance(v, float) and v]
    small = bool(floats) and min(floats) < 1e-3
    return tuple(_value(v, small) for v in values)


def _value(value: object, small: bool) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"{value:.2e}" if small else f"{value:.3f}"
