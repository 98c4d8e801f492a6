"""What a check found, and the list of checks in which one may need another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from study.basics.errors import StudyError

log = logging.getLogger(__name__)


class Status(StrEnum):
    """`skip` is for a check that had no ground to stand on, or was not asked for."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class CheckResult:
    """One check's answer.

    Attributes:
        name: one or two words, e.g. ``disk`` or ``memory lift``.
        status: see `Status`.
        found: one sentence; for a skipped check, why.
        remedy: how to mend it; empty only where there is nothing to mend.

    Raises:
        ValueError: it failed and says nothing of how to mend it.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status is Status.FAIL and not self.remedy:
            raise ValueError(f"check {self.name!r} fails without a remedy: {self.found}")


@dataclass(frozen=True)
class Finding:
    """A `CheckResult` whose check does not know its own name."""

    found: str
    status: Status = Status.PASS
    remedy: str = ""


class CheckObserver(Protocol):
    """Follows the checks; called from the driver's thread."""

    def working(self, text: str) -> None:
        """What is being looked at, for a person who waits."""

    def result(self, result: CheckResult) -> None:
        """A check is over."""


class Checklist:
    """Runs checks one after another and keeps what they found.

    A check that raises has failed, whatever it raised: the others still run.
    """

    def __init__(self, observer: CheckObserver, fallback_remedy: str) -> None:
        """
        Args:
            fallback_remedy: for an exception that nobody foresaw.
        """
        self._observer, self._fallback = observer, fallback_remedy
        self._results: dict[str, CheckResult] = {}

    @property
    def results(self) -> tuple[CheckResult, ...]:
        """In the order in which they were found."""
        return tuple(self._results.values())

    def stands(self, *names: str) -> bool:
        """Whether all these checks ran and none failed."""
        return self._missing(names) is None

    def run(
        self,
        name: str,
        check: Callable[[], Finding],
        needs: Sequence[str] = (),
        remedy: str = "",
        working: str = "",
    ) -> None:
        """Run a check, or skip it where one that it needs failed or was skipped.

        Args:
            remedy: of a failure whose own message has none.
            working: what to tell people while it runs.
        """
        if not self.ready(name, needs):
            return
        if working:
            self.working(working)
        try:
            finding = check()
        except StudyError as error:
            found, told = split_remedy(str(error).removeprefix(f"{name}: "))
            finding = Finding(found, Status.FAIL, told or remedy or self._fallback)
        except Exception as error:
            log.exception("check %s", name)
            first = next((x for x in str(error).splitlines() if x.strip()), "no message")
            found = f"{type(error).__name__}: {first}"[:300]
            finding = Finding(found, Status.FAIL, remedy or self._fallback)
        self.add(name, finding)

    def ready(self, name: str, needs: Sequence[str]) -> bool:
        """Whether what a check needs stands; if not, it is skipped."""
        missing = self._missing(needs)
        if missing is not None:
            self.skip(name, f"needs the check `{missing}`")
        return missing is None

    def working(self, text: str) -> None:
        """Tell people who wait what is being looked at."""
        self._observer.working(text)

    def skip(self, name: str, reason: str) -> None:
        """Say why a check does not run."""
        self.add(name, Finding(reason, Status.SKIP))

    def add(self, name: str, finding: Finding) -> None:
        """Keep a finding that was made elsewhere."""
        result = CheckResult(name, finding.status, finding.found, finding.remedy)
        self._results[name] = result
        self._observer.result(result)

    def _missing(self, needs: Sequence[str]) -> str | None:
        """The first needed check that did not run or failed."""
        able = (Status.PASS, Status.WARN)
        return next(
            (n for n in needs if n not in self._results or self._results[n].status not in able),
            None,
        )


def split_remedy(message: str) -> tuple[str, str]:
    """An error's text as what was found and what to do: the package's errors end with that.

    Returns:
        (found, remedy); the remedy is empty where the message is a single sentence.
    """
    text = " ".join(message.split())
    found, stop, remedy = text.rpartition(". ")
    return (found + ".", remedy) if stop else (text, "")
