"""A report as Markdown, with its figures as SVG files beside it."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.basics.text_safety import printable
from study.report.base import Column, Contents, Snippet

FIGURE_FOLDER = "figures"

_PLAIN = re.compile(r"[A-Za-z0-9.,/:%+-]+")
"""Most cells of a table: one word or number, in which nothing means anything to Markdown."""


class Verbatim(str):
    """Markdown of our own making, written as it is."""


def render_markdown(contents: Contents) -> str:
    """The whole document; every text from outside is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        finalize=escape_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"fenced": fenced, "rule": column_rule, "verbatim": Verbatim}
    text = environment.get_template("report.md.j2").render(
        report=contents, folder=Verbatim(FIGURE_FOLDER)
    )
    return printable(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


def escape_markdown(value: object) -> str:
    """Text so that Markdown shows it as it is, in one line, also inside a table."""
    if isinstance(value, Verbatim):
        return value
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    # Underscores inside words are plain text already: `learning_rate` stays readable.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # At the start of a line these would make a heading or a list.
    return re.sub(r"^(\d*)(#|[-+](?= )|(?<=\d)[.)](?= ))", r"\1\\\2", text)


def fenced(snippet: Snippet) -> Verbatim:
    """A YAML code block whose fence is longer than any run of backticks inside."""
    runs = [len(run) for run in re.findall(r"`+", snippet.text)]
    fence = "`" * max(3, *(n + 1 for n in runs), 3)
    return Verbatim(f"{fence}yaml\n{snippet.text.rstrip()}\n{fence}")


def column_rule(column: Column) -> Verbatim:
    """The table's second line: numbers flush right."""
    return Verbatim("---:" if column.number else "---")
