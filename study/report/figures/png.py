"""A figure as PNG, for documents that cannot show SVG."""

from __future__ import annotations

import vl_convert

from study.report.base import Figure

_SCALE = 2.0
"""Pixels per unit: sharp on a screen of double density."""


def to_png(figure: Figure) -> bytes:
    """The figure's SVG, rendered on a light ground."""
    return bytes(vl_convert.svg_to_png(figure.svg, scale=_SCALE))
