"""What a report is made of, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from study.strategies import arm_label

_T = TypeVar("_T")

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


Written = tuple[Column, Callable[[_T], str]]
"""A column, and what it says of an item."""


def numeric(title: str, of: Callable[[_T], str]) -> Written[_T]:
    """A column of numbers, for `table_of`."""
    return Column(title, number=True), of


def table_of(caption: str, items: Iterable[_T], *columns: Written[_T]) -> Table:
    """A row per item; each column with what it says of one."""
    rows = tuple(tuple(of(item) for _, of in columns) for item in items)
    return Table(caption, tuple(column for column, _ in columns), rows)


BY_CELL: tuple[Written[Any], ...] = (
    numeric("Examples", lambda c: count(c.size)),
    (ARM_COLUMN, lambda c: arm_label(c.arm)),
)
"""The first columns where an item has a `size` and an `arm`, for `table_of`."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: file name without suffix, also the prefix of the ids inside the SVG.
        svg: the whole SVG document.
        alt: what it shows, in words, for those who cannot see it.
        caption: how to read it.
        takeaway: what to take from it, one sentence that stands above it.
        table: the drawn numbers, folded below it.
    """

    name: str
    svg: str
    alt: str
    caption: str
    takeaway: str
    table: Table | None = None


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
class VerdictCard:
    """A verdict in words, the same in every format.

    Attributes:
        dataset_size: training examples that were asked about.
        arm: the arm of a claim, which colours the card; empty for a lean and for "not enough
            evidence".
        label: the answer in a few words, e.g. ``LIFT`` or ``Not enough evidence``.
        sentence: the answer in one sentence: size, basis, arm, confidence in words and numbers.
        notes: what must be known beside it, e.g. a trade-off; one sentence each.
        numbers: confidence, difference, cost and memory at a glance.
        facts: (name, value) of everything else.
        reasons: failed gates: (name, what was found and needed and what to do).
        changes: what would change the answer, one sentence each.
        next_runs: the cheapest runs that would say more; None where none are needed.
    """

    dataset_size: int
    arm: str
    label: str
    sentence: str
    notes: tuple[str, ...] = ()
    numbers: tuple[Tile, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    changes: tuple[str, ...] = ()
    next_runs: Table | None = None


@dataclass(frozen=True)
class Download:
    """A file that travels inside the report.

    Attributes:
        name: its file name.
        media_type: e.g. ``text/csv``.
        text: all of it.
        about: what it holds, in a few words.
        packed: travels gzip-compressed inside the HTML, where space is short.
    """

    name: str
    media_type: str
    text: str
    about: str
    packed: bool = False


@dataclass(frozen=True)
class Contents:
    """A whole report, ready to be laid out.

    Attributes:
        banner: what is missing from an unfinished study, empty when finished.
        cards: one per dataset size that was asked about; empty for a study that compares nothing.
        sweep: what such a study has in their place; None without a complete trial.
        case: the same for many sizes, in ascending order, for looking up any other one.
        case_table: the same at the tested sizes in short, for readers without JavaScript.
        headline: what was found, and what stands behind it.
        caveats: what must be known beside the headline.
        downloads: files that travel inside the HTML, and lie beside the Markdown.
    """

    title: str
    subtitle: str
    banner: str
    cards: tuple[VerdictCard, ...]
    sweep: Section | None
    case: tuple[VerdictCard, ...]
    case_table: Table | None
    headline: tuple[str, str]
    caveats: tuple[str, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    downloads: tuple[Download, ...]
    footer: str

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(figure for section in self.sections for figure in section.figures)


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; `figures` are those the Markdown shows, each with a PNG beside it."""

    html: Path
    markdown: Path
    json: Path
    figures: tuple[Path, ...] = ()
    downloads: tuple[Path, ...] = ()


def or_dash(value: _T | None, write: Callable[[_T], str]) -> str:
    """A value as `write` has it, or a dash."""
    return MISSING if value is None else write(value)


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
