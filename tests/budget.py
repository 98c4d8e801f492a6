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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """Of a test, the fixtures that it is first to use included."""

    tier: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    process_starts: int = 0


class Meter:
    """What was used since the last look, by this process and those below it."""

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
        """CPU seconds, those of processes that have ended included."""
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

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """For what only the first session in an environment has to do."""
        seconds, starts = self._used(), self._starts
        yield
        last_seconds, last_starts = self._last
        seconds, starts = self._used() - seconds, self._starts - starts
        self._last = last_seconds + seconds, last_starts + starts


METER = Meter()
"""This process's."""


def excesses(costs: Mapping[str, Cost], slowness: float) -> list[str]:
    """Where the default tier is over its limits.

    Args:
        costs: by test.
        slowness: how many times longer this machine takes than the one of the limits.
    """
    text = LIMITS.read_text(encoding="utf-8")
    (seconds,) = map(int, re.findall(r"\*\*(\d+) s of CPU time\*\*", text))
    (starts,) = map(int, re.findall(r"\*\*(\d+) process starts\*\*", text))
    default = {name: cost for name, cost in costs.items() if cost.tier == "default"}
    found = [
        f"{name} took {cost.cpu_seconds:.0f} s of CPU time; a test may take {seconds} s"
        for name, cost in default.items()
        if cost.cpu_seconds > seconds * slowness
    ]
    if (started := sum(cost.process_starts for cost in default.values())) > starts:
        found.append(f"the default tier started {started} processes; it may start {starts}")
    return found


def loop_seconds() -> float:
    """CPU seconds of a loop that says how fast this machine is; the least of some attempts."""
    return min(timeit.repeat("for _ in range(10**6): pass", timer=time.process_time, number=1))


class Budget:
    """The plugin; with pytest-xdist a copy in each process, and reports carry what tests cost."""

    def __init__(self) -> None:
        self._costs: dict[str, Cost] = defaultdict(Cost)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        outcome: Any = yield
        report = outcome.get_result()
        used = METER.look() if report.duration > BRIEF_SECONDS else (0.0, 0)
        report.user_properties.append(("cost", (tier_of(item), *used)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        cost = self._costs[report.nodeid]
        cost.tier, cpu_seconds, starts = dict(report.user_properties)["cost"]
        cost.seconds += report.duration
        cost.cpu_seconds += cpu_seconds
        cost.process_starts += starts

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._excesses = excesses(self._costs, max(1.0, loop_seconds() / USUAL_LOOP_SECONDS))
        if self._excesses and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._costs:
            return
        terminalreporter.section("cost by tier")
        terminalreporter.line("tier         tests   seconds  CPU seconds  process starts")
        for tier in TIERS:
            if costs := [cost for cost in self._costs.values() if cost.tier == tier]:
                terminalreporter.line(
                    f"{tier:11} {len(costs):6} {sum(c.seconds for c in costs):9.0f}"
                    f" {sum(c.cpu_seconds for c in costs):12.0f}"
                    f" {sum(c.process_starts for c in costs):15}"
                )
        for excess in self._excesses:
            terminalreporter.line(f"Over the budget of tests/README.md: {excess}.", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Budget())
