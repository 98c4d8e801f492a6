"""A report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from study.report.base import Contents, Figure

# The figures' colours become variables of the page, so that they follow its dark mode.
_VARIABLES = {
    "#1c2733": "var(--ink)",
    "#5d6977": "var(--muted)",
    "#e2e6eb": "var(--line)",
    "#fffffe": "none",
    "#0b62a4": "var(--full)",
    "#c8500a": "var(--lift)",
}


def render_html(contents: Contents) -> str:
    """The whole page; every text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline_svg"] = inline_svg
    return environment.get_template("report.html.j2").render(report=contents)


def inline_svg(figure: Figure) -> Markup:
    """The figure's SVG for a place inside HTML. It is our own drawing: its texts were escaped
    when it was drawn."""
    svg = figure.svg
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f'"{colour}"', f'"{variable}"')
    return Markup(svg[svg.index("<svg") :])
