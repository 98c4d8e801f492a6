"""Somebody to whom checks are told."""

from __future__ import annotations

from study.orchestration.preflight.base import CheckResult


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def working(self, text: str) -> None:
        self.told.append(text)

    def result(self, result: CheckResult) -> None:
        self.told.append(result.name)
