"""Every exception the package raises on purpose.

StudyError                  the base; the CLI prints its text and exits with `exit_code`
|-- UserError               something the user can mend (exit code 2)
|   |-- ConfigError         faults in study.yaml or a search space, all of them at once
|   |-- DataError           data files: missing, unreadable, empty, wrong columns
|   |   `-- OtherDataError  tokenised data that are not the study's
|   |-- ModelError          model folder or architecture that cannot be used
|   |-- ResourceError       resources that the cluster can never give
|   `-- StoreError          a store that is missing, of another study, or of another version
|-- StorageLostError        the study's database stopped answering (exit code 1)
`-- TrialError              one trial is lost, the study goes on (exit code 1)
    |-- NonFiniteLossError  the loss became NaN or infinite
    |-- AuditError          a phase changed what it must not, or did not change what it must
    `-- PrefixCacheError    hidden states cannot be kept here; the trial computes them itself
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.basics.text_safety import one_line
from study.basics.urls import without_password, without_passwords

_MOST_FAULTS = 50
_LONGEST = 2000
"""Characters of a fault."""


class StudyError(Exception):
    """Base of every error the package raises on purpose. Its text has no password of a URL in it,
    wherever it is shown."""

    exit_code = 1

    def __str__(self) -> str:
        return without_password(super().__str__())


class UserError(StudyError):
    """The user's input is at fault; the message says what, where, and how to mend it."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a YAML file.

    Attributes:
        path: dotted YAML path, e.g. ``training.global_batch_size``.
        line: 1-based line in the file (the enclosing section's for a missing key), or None when
            there is no file.
        value: the offending value as written, or None when a key is missing.
        rule: what must hold.
        remedy: what to do about it.
    """

    path: str
    line: int | None
    value: object
    rule: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.path} (line {self.line})" if self.line else self.path
        shown = "" if self.value is None else f" Found: {_shorten(self.value)}."
        text = f"{where}: {self.rule}{shown} {self.remedy}".rstrip()
        return _without_middle(one_line(text), _LONGEST)


def _shorten(value: object) -> str:
    return _without_middle(repr(without_passwords(value)), 80)


def _without_middle(text: str, limit: int) -> str:
    """Of a long text its ends: the end of a path tells most."""
    head = limit // 3
    return text if len(text) <= limit else f"{text[:head]}...{text[head + 3 - limit :]}"


class ConfigError(UserError):
    """All faults of one file, shown together."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        shown = [f"  - {fault}" for fault in self.faults[:_MOST_FAULTS]]
        if len(self.faults) > len(shown):
            shown.append(f"  and {len(self.faults) - len(shown)} more")
        super().__init__("\n".join([f"{one_line(source)}: {count}", *shown]))

    def __reduce__(self) -> tuple[type, tuple[str, tuple[Fault, ...]]]:
        return type(self), (self.source, self.faults)


class DataError(UserError):
    """Data files that are missing, unreadable, empty or lack a column."""


class OtherDataError(DataError):
    """Tokenised data that are not those that the study was started with."""


class ModelError(UserError):
    """A model that cannot be loaded, or an architecture that cannot be split into blocks."""


class ResourceError(UserError):
    """Resources that no node of the cluster can give."""


class StoreError(UserError):
    """A store that is missing, belongs to another study, or has an unknown schema version."""


class StorageLostError(StudyError):
    """The study's database stopped answering, and was waited for in vain."""


class TrialError(StudyError):
    """One trial is lost; the study goes on."""


class NonFiniteLossError(TrialError):
    """The loss or gradient norm became NaN or infinite."""


class AuditError(TrialError):
    """An inactive parameter moved, or an active one with a gradient did not."""


class PrefixCacheError(TrialError):
    """Hidden states of a frozen prefix cannot be kept or used; the trial computes them itself."""
