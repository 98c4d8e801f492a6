"""Class labels of all splits, as ids."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.basics.errors import DataError
from study.protocol.records import KEPT_HEAD

SINGLE_LABEL = "single_label_classification"

_INTEGER = re.compile(r"-?\d+")
_WHOLE = re.compile(r"(-?\d+)\.0+")
# More ids than this times the labels in use means they are codes, not class ids.
_LARGEST_GAP = 10

Label = int | str


@dataclass(frozen=True)
class Head:
    """The head for classification that a base model brings.

    Attributes:
        names: of what it tells apart, by id.
        problem: Hugging Face's ``problem_type``.
    """

    names: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class Classes:
    """What the labels mean.

    Attributes:
        names: by id.
        ids: of the labels, by split.
        head: as `DataSummary.head`.
    """

    names: tuple[str, ...]
    ids: dict[str, list[int]]
    head: str


def resolve_labels(
    labels: Mapping[str, Sequence[Label]],
    declared: Sequence[str] | None,
    head: Head | None = None,
) -> Classes:
    """Give every label its id.

    Where the labels have the names that the base model's own head was trained for, also in other
    capitals, they get its ids. Otherwise names a dataset declares (`datasets.ClassLabel`) keep
    their order; integers, also such written as text or as ``1.0``, stay as they are; other names
    get ids in sorted order.

    Args:
        labels: labels by split, at least one in all.
        declared: names by id, or None.
        head: the base model's own, or None.

    Raises:
        DataError: a negative, unknown or implausibly large label, or one that only the validation
            or test split has.
    """
    found: set[Label] = set().union(*labels.values())
    ids: dict[Label, int]
    if declared is not None:
        ids = {label: i for i, name in enumerate(declared) for label in (i, name)}
        names = tuple(declared)
    elif all((number := _number(label)) is not None for label in found):
        ids = {label: number for label in found if (number := _number(label)) is not None}
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
    by_split = {split: [ids[label] for label in values] for split, values in labels.items()}
    _refuse_unknown(by_split, names)
    if head is None:
        return Classes(names, by_split, "the base model has none")
    if head.problem != SINGLE_LABEL:
        given = "a number" if head.problem == "regression" else "any number of classes"
        return Classes(names, by_split, f"the base model's gives a text {given}")
    own = _ids_of_head(names, head.names)
    if own is None:
        why = f"the base model's tells apart {_some(head.names)}, the labels are {_some(names)}"
        return Classes(names, by_split, why)
    by_split = {split: [own[i] for i in values] for split, values in by_split.items()}
    return Classes(head.names, by_split, KEPT_HEAD)


def alike(names: Sequence[str]) -> list[str]:
    """What to know of names that look like one class: those that differ only in capitals, white
    space, or in how Unicode spells a character."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(unicodedata.normalize("NFKC", name)), []).append(name)
    return [
        f"The classes {_some([repr(name) for name in group])} differ only in capitals, white space "
        "or Unicode's spelling. If they are one, write it in one way."
        for group in groups.values()
        if len(group) > 1
    ]


def _number(label: Label) -> int | None:
    """An integer, also where it is written as text; pandas writes those of a column with a gap as
    ``1.0``."""
    if isinstance(label, int):
        return label
    if _INTEGER.fullmatch(label):
        return int(label)
    whole = _WHOLE.fullmatch(label)
    return int(whole[1]) if whole else None


def _refuse_unknown(ids: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    known = set(ids.get("train", ()))
    for split in ("validation", "test"):
        unknown = sorted(set(ids.get(split, ())) - known)
        if unknown and known:
            raise DataError(
                f"data.{split}: has the labels {_some([repr(names[i]) for i in unknown])}, which "
                f"no row of data.train has ({_some([repr(names[i]) for i in sorted(known)])}), so "
                "nothing could learn them. Are they spelt otherwise? Correct or remove such rows."
            )


def _ids_of_head(names: Sequence[str], head: Sequence[str]) -> list[int] | None:
    """The head's id of each name; None where they do not agree."""
    numbered = all(_plain(name) in (str(i), f"label_{i}") for i, name in enumerate(head))
    if numbered and len(names) <= len(head) and all(n == str(i) for i, n in enumerate(names)):
        return [*range(len(names))]
    own = {_plain(name): number for number, name in enumerate(head)}
    found = [own.get(_plain(name)) for name in names]
    if len(own) < len(head) or None in found or len(set(found)) < len(found):
        return None
    return [number for number in found if number is not None]


def _plain(name: str) -> str:
    return name.strip().casefold()


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"
