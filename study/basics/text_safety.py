"""Text from outside, made harmless where it leaves: for a terminal, for a line, for a CSV cell.

Names, columns, values and reasons come from files, stores, jobs and libraries. A terminal obeys
what some of their characters say, a reader takes a line break for the program's own, and a
spreadsheet runs a cell that begins like a formula.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the direction of text
    "\u2028\u2029"  # line ends to some
    "\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # unseen
    "\ud800-\udfff"  # halves of characters, which no encoding has
    "]"
)
_COLOURS = re.compile("\x1b\\[[0-9;:]*m")
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet may take for a formula, full-width forms included."""


def printable(text: str) -> str:
    r"""`text` as a terminal shows it: what it would obey, or not show, is written as ``\x1b``."""
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""`printable` in one line: a line break is written as ``\n``."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def without_colours(text: str) -> str:
    """A log's text without the colours that programs write for terminals."""
    return _COLOURS.sub("", text)


def csv_cell(value: object) -> object:
    """A cell that every spreadsheet takes for text: a formula's beginning gets an apostrophe in
    front, as spreadsheets themselves mark text. What is no text stays as it is."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
