"""Write the levels that the package ships: `python -m tests.simulation.level_table`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from study.protocol.rounds.boundary import ERROR, FIRST_LOOK, boundary_levels
from study.protocol.rounds.levels import MOST_ROUNDS, TABLE, last_look

DIGITS = 5


def table(rounds: Iterable[int]) -> dict[str, list[float]]:
    """By planned rounds, the levels of the looks from the first on."""
    return {
        str(n): [float(f"{level:.{DIGITS}g}") for level in boundary_levels(n, last_look(n))]
        for n in rounds
    }


def main() -> None:
    """Takes a minute."""
    head = {"error": ERROR, "first_look": FIRST_LOOK}
    lines = [
        f'    "{n}": {json.dumps(levels)}'
        for n, levels in table(range(FIRST_LOOK, MOST_ROUNDS + 1)).items()
    ]
    body = ",\n".join(lines)
    start = ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in head.items())
    text = f'{{\n{start},\n  "levels": {{\n{body}\n  }}\n}}\n'
    TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
