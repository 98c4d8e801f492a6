"""Class labels of all splits, as ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from study.errors import DataError

_INTEGER = re.compile(r"-?\d+")
# More ids than this times the labels in use means they are codes, not class ids.
_LARGEST_GAP = 10

Label = int | str


def resolve_labels(
    labels: Mapping[str, Sequence[Label]], declared: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Give every label its id.

    Names a dataset declares (`datasets.ClassLabel`) keep their order. Otherwise integers, also
    such written as text, stay as they are, and names get ids in sorted order.

    Args:
        labels: labels by split, at least one in all.
        declared: names by id, or None.

    Returns:
        names by id, and ids by split.

    Raises:
        DataError: a negative, unknown or implausibly large label.
    """
    found: set[Label] = set().union(*labels.values())
    ids: dict[Label, int]
    if declared is not None:
        ids = {label: i for i, name in enumerate(declared) for label in (i, name)}
        names = tuple(declared)
    elif all(isinstance(label, int) or _INTEGER.fullmatch(label) for label in found):
        ids = {label: int(label) for label in found}
        names = tuple(str(i) for i in range(max(ids.values()) + 1))
        if len(names) > _LARGEST_GAP * len(set(ids.values())):
            raise DataError(
                f"data.label: {len(set(ids.values()))} labels, but the largest is "
                f"{len(names) - 1}. Integer labels are class ids, counted from 0: number them "
                "anew, or write names."
            )
    else:
        names = tuple(sorted({str(label) for label in found}))
        ids = {label: names.index(str(label)) for label in found}
    for split, values in labels.items():
        for row, label in enumerate(values, start=1):
            if ids.get(label, -1) < 0:
                raise DataError(
                    f"data.{split}: row {row} has the label {label!r}, which is not one of "
                    f"{_some(names)}. Correct or remove such rows (-1 usually means unlabelled)."
                )
    return names, {split: [ids[label] for label in values] for split, values in labels.items()}


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"
