"""A report as one HTML file that needs nothing else: no network, and no script to be read."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from study.report.base import Contents, Download, Figure
from study.report.case import lookup
from study.strategies import STRATEGIES

TEMPLATES = Path(__file__).parent / "templates"

# The figures' colours become variables of the page, so that they follow its dark mode.
_VARIABLES = {
    "#1c2733": "var(--ink)",
    "#5d6977": "var(--muted)",
    "#e2e6eb": "var(--line)",
    "#fffffe": "none",
    "#5b4a8a": "var(--both)",
}


def render_html(contents: Contents) -> str:
    """The whole page; every text is escaped."""
    environment = report_templates()
    # One text for the page and for the hash that allows it to run.
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        report=contents,
        policy=_policy(script),
        script=Markup(script),
        lookup=Markup(_lookup(contents, environment)),
    )


def report_templates() -> Environment:
    """Templates that escape every text, with the filters they use and the arms' colours."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["strategies"] = STRATEGIES
    environment.filters |= {
        "inline_svg": inline_svg,
        "data_uri": data_uri,
        "file_name": file_name,
        "prose": prose,
    }
    return environment


def prose(text: str) -> Markup:
    """Escaped text in which `backticks` set code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def inline_svg(figure: Figure) -> Markup:
    """The figure's SVG for a place inside HTML. It is our own drawing: its texts were escaped
    when it was drawn."""
    svg = figure.svg
    arms = {strategy.colour: f"var(--{arm})" for arm, strategy in STRATEGIES.items()}
    for colour, variable in (_VARIABLES | arms).items():
        svg = svg.replace(f'"{colour}"', f'"{variable}"')
    # The label of the element around it says what it shows.
    return Markup(svg[svg.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1))


def data_uri(download: Download) -> str:
    """The file inside a link, so that it can be saved offline and without a script."""
    data, media_type = download.text.encode("utf-8"), download.media_type
    if download.packed:
        # No time stamp: the same study gives the same page.
        data, media_type = gzip.compress(data, compresslevel=6, mtime=0), "application/gzip"
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def file_name(download: Download) -> str:
    """As the link saves it."""
    return f"{download.name}.gz" if download.packed else download.name


def _policy(script: str) -> str:
    """Content security policy: nothing from anywhere, and no script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _lookup(contents: Contents, environment: Environment) -> str:
    if not contents.case:
        return ""
    macros: Any = environment.get_template("macros.html.j2").module
    return lookup(contents.case, [str(macros.card(card, "h4", "answer")) for card in contents.case])
