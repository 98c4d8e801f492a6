"""Why a group of workers failed, in one line."""

from __future__ import annotations


def failure_reason(error: BaseException) -> str:
    """One line for people: the exception that a worker raised, not Ray's wrapping of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _looks_raised(line)]
    return (raised[-1] if raised else lines[-1] if lines else repr(error))[:500]


def _looks_raised(line: str) -> bool:
    name, colon, _ = line.partition(":")
    return (
        bool(colon)
        and name.replace(".", "").replace("_", "").isalnum()
        and (name.endswith(("Error", "Exception", "Interrupt", "Exit")))
    )
