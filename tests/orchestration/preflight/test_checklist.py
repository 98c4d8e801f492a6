"""Checks run on whatever the others found, and say how to mend what failed."""

from __future__ import annotations

import pytest

from study.basics.errors import DataError, UserError
from study.orchestration.preflight.base import Checklist, CheckResult, Finding, Status, split_remedy
from tests.orchestration.preflight.listener import Listener


def raising(error: Exception) -> Finding:
    raise error


def test_independent_checks_all_run_and_dependents_of_a_failed_one_are_skipped() -> None:
    checks = Checklist(Listener(), "look at the log")
    checks.run("data", lambda: raising(DataError("data.train: empty. Write examples into it.")))
    checks.run("model", lambda: Finding("fine"))
    checks.run("tokens", lambda: raising(AssertionError("must not run")), needs=("data", "model"))
    checks.run("plan", lambda: raising(AssertionError("must not run")), needs=("tokens",))
    checks.run("disk", lambda: raising(UserError("full. Free some.")))
    found = {r.name: r for r in checks.results}
    assert [r.status for r in found.values()] == ["fail", "pass", "skip", "skip", "fail"]
    assert found["data"].found == "data.train: empty."
    assert found["data"].remedy == "Write examples into it."
    assert found["tokens"].found == "needs the check `data`"
    assert found["plan"].found == "needs the check `tokens`"


def test_a_warning_lets_dependents_run() -> None:
    checks = Checklist(Listener(), "look at the log")
    checks.add("first", Finding("hm", Status.WARN, "do this"))
    checks.run("second", lambda: Finding("fine"), needs=("first",))
    assert checks.stands("first", "second") and not checks.stands("third")


def test_what_nobody_foresaw_is_a_failure_with_a_remedy_too() -> None:
    checks = Checklist(Listener(), "look at the log")
    checks.run("nodes", lambda: raising(RuntimeError("\n\nthe socket is gone\nsecond line")))
    checks.run("model", lambda: raising(UserError("no remedy in here")), remedy="Check model.path.")
    nodes, model = checks.results
    assert nodes.found == "RuntimeError: the socket is gone" and nodes.remedy == "look at the log"
    assert model.found == "no remedy in here" and model.remedy == "Check model.path."


def test_results_are_told_as_they_come() -> None:
    listener = Listener()
    checks = Checklist(listener, "")
    checks.run("ray", lambda: Finding("fine"), working="Starting Ray")
    checks.skip("probe", "not asked for")
    assert listener.told == ["Starting Ray", "ray", "probe"]


def test_a_failure_without_a_remedy_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="without a remedy"):
        CheckResult("disk", Status.FAIL, "full")


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("A is wrong. B too. Do C.", ("A is wrong. B too.", "Do C.")),
        ("cannot load /tmp/model.v1", ("cannot load /tmp/model.v1", "")),
        ("one line\n  of two. Mend it.", ("one line of two.", "Mend it.")),
    ],
)
def test_an_error_ends_with_its_remedy(message: str, parts: tuple[str, str]) -> None:
    assert split_remedy(message) == parts
