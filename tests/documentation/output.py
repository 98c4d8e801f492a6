"""Output on a page against output of a run, without what differs from machine to machine."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")

_TIME_LEFT = re.compile(r"\d+ of \d+ trials ended, about [^(]* left \([^)]*\)")


def fixed(text: str) -> str:
    """Text on one line, with one word for every number, duration and trial."""
    text = re.sub(_TIME_LEFT, "", text)  # told now and then, after a minute at the earliest
    text = re.sub(r"\b(full|lift)-n\d+-r\d+-[sc]\d+", "TRIAL", " ".join(text.split()))
    text = _NUMBER.sub("#", text).replace("[ #", "[#")
    text = re.sub(r"(# h )?(# min )?# s\b", "#s", text)
    return text.replace(" #s left", "")  # told only where a second or more is left


def missing_part(page: str, output: str) -> str | None:
    """The first of the parts between `...` on the page that the output lacks, in their order; None
    if it has all."""
    rest = fixed(output)
    for part in fixed(page).split("..."):
        at = rest.find(part.strip())
        if at < 0:
            return part
        rest = rest[at + len(part.strip()) :]
    return None
