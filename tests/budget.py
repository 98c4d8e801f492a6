"""What the tests cost, and that the default tier stays cheap; a plugin of `tests/conftest.py`.

Costs are CPU seconds of all processes and the number of processes that tests start themselves,
neither of which a busy machine changes much. `tests/README.md` says how much the default tier may
have; a session in which it takes more fails.
"""

from __future__ import annotations

import re
import sys
import time
import timeit
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tiers import TIERS, tier_of

LIMITS = Path(__file__).with_name("README.md")
BRIEF_SECONDS = 0.1
"""A phase of a test that is as brief is not worth a look at the processes: the next one has it."""
USUAL_LOOP_SECONDS = 0.015
"""`loop_seconds` of the machine for which the limits were written; a slower one has more."""
_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}


@dataclass
class Cost:
    """Of a test, its fixtures' first use included, or of a tier."""

    tests: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    process_starts: int = 0


class Meter:
    """What was used since the last look."""

    def __init__(self) -> None:
        self._process, self._starts = psutil.Process(), 0
        self._last = self._used(), 0
        sys.addaudithook(self._audit)
        begin = BaseProcess.start

        def start(process: BaseProcess) -> None:
            # A fork is audited as one.
            self._starts += getattr(process, "_start_method", "fork") != "fork"
            begin(process)

        BaseProcess.start = start  # type: ignore[method-assign]

    def _audit(self, event: str, _: object) -> None:
        self._starts += event in _STARTS

    def _used(self) -> float:
        """CPU seconds of this process and those below it, the ones that ended included."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def look(self) -> tuple[float, int]:
        """CPU seconds and process starts."""
        before, self._last = self._last, (self._used(), self._starts)
        # A process whose parent is gone takes its seconds with it.
        return max(0.0, self._last[0] - before[0]), self._last[1] - before[1]


class Budget:
    """The plugin; with pytest-xdist, a copy in each process: reports carry what tests cost."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = defaultdict(Cost)
        self.tiers: dict[str, str] = {}
        self.meter = Meter()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        outcome: Any = yield
        report = outcome.get_result()
        used = self.meter.look() if report.duration > BRIEF_SECONDS else (0.0, 0)
        report.user_properties.append(("cost", (tier_of(item), *used)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier, cpu_seconds, starts = dict(report.user_properties)["cost"]
        self.tiers[report.nodeid] = tier
        cost = self.costs[report.nodeid]
        cost.seconds += report.duration
        cost.cpu_seconds += cpu_seconds
        cost.process_starts += starts

    def excesses(self) -> list[str]:
        """Where the default tier is over its limits."""
        text = LIMITS.read_text(encoding="utf-8")
        (most_seconds,) = map(int, re.findall(r"\*\*(\d+) s of CPU time\*\*", text))
        (most_starts,) = map(int, re.findall(r"\*\*(\d+) process starts\*\*", text))
        default = {n: c for n, c in self.costs.items() if self.tiers[n] == "default"}
        slowness = max(1.0, loop_seconds() / USUAL_LOOP_SECONDS)
        found = [
            f"{name} took {cost.cpu_seconds:.0f} s of CPU time; a test may take "
            f"{most_seconds * slowness:.0f} s on this machine"
            for name, cost in default.items()
            if cost.cpu_seconds > most_seconds * slowness
        ]
        starts = sum(cost.process_starts for cost in default.values())
        if starts > most_starts:
            found.append(f"the default tier started {starts} processes; it may start {most_starts}")
        return found

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.excesses() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        totals: dict[str, Cost] = defaultdict(Cost)
        for name, cost in self.costs.items():
            total = totals[self.tiers[name]]
            total.tests += 1
            total.seconds += cost.seconds
            total.cpu_seconds += cost.cpu_seconds
            total.process_starts += cost.process_starts
        if not totals:
            return
        terminalreporter.section("cost by tier")
        terminalreporter.line("tier         tests   seconds  CPU seconds  process starts")
        for tier in TIERS:
            if total := totals.get(tier):
                terminalreporter.line(
                    f"{tier:11} {total.tests:6} {total.seconds:9.0f} {total.cpu_seconds:12.0f}"
                    f" {total.process_starts:15}"
                )
        for excess in self.excesses():
            terminalreporter.line(f"Over the budget of tests/README.md: {excess}.", red=True)


def loop_seconds() -> float:
    """CPU seconds of a loop that says how fast this machine is; the least of some attempts."""
    return min(timeit.repeat("for _ in range(10**6): pass", time.process_time, number=1, repeat=5))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Budget())
