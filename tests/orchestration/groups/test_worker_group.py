"""What people read when a worker fails."""

from __future__ import annotations

import pytest

from study.orchestration.groups.failures import failure_reason

WRAPPED = """Training failed due to worker errors:
[Rank 0 Error Snippet]:
Traceback (most recent call last):
  File "loop.py", line 3, in run
    raise AuditError("3 frozen parameters moved")
study.basics.errors.AuditError: 3 frozen parameters moved
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRAPPED, "study.basics.errors.AuditError: 3 frozen parameters moved"),
        ("The actor died unexpectedly", "The actor died unexpectedly"),
        ("", "RuntimeError('')"),
    ],
)
def test_the_reason_is_the_workers_own_exception_in_one_line(text: str, reason: str) -> None:
    assert failure_reason(RuntimeError(text)) == reason
