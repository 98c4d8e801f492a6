"""Follows a running study: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from study.basics.text_format import duration
from study.basics.text_safety import one_line
from study.cli.output import Console
from study.cli.time_left import Pace, TimeLeft
from study.protocol.plan import StudyPlan
from study.protocol.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState

_COLOURS = {
    TrialState.COMPLETE: "green",
    TrialState.RUNNING: "cyan",
    TrialState.PAUSED: "magenta",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.WAITING: "dim",
}
_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_WHOLE = (TrialState.COMPLETE, TrialState.PRUNED)
"""Whose seconds tell what others will take; a crash says nothing."""


class LiveView:
    """An `Observer`; use as a context manager around the run."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._opened = self._told = clock()
        self._plan: StudyPlan | None = None
        self._pace: Pace | None = None
        self._at_once = 1
        self._states: dict[str, TrialState] = {}
        self._running: dict[str, tuple[TrialSpec, float, Measurement | None]] = {}
        self._best: dict[tuple[str, int], float] = {}
        # Draws once when it is made, so it comes last.
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=2,
            transient=True,
            # What libraries print goes to the log file, not above the view.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    # Observer

    def planned(self, plan: StudyPlan, records: Sequence[TrialRecord]) -> None:
        self._plan = plan
        self._pace = Pace(plan, self._pace.took if self._pace else {})
        self._states = {r.spec.trial_id: r.state for r in records}
        for record in records:
            if record.state is TrialState.COMPLETE and record.score is not None:
                self._keep_best(record.spec, record.score)

    def message(self, text: str) -> None:
        self._console.print(Text(f"{one_line(text)} ...", style="dim"))

    def started(self, spec: TrialSpec) -> None:
        self._states[spec.trial_id] = TrialState.RUNNING
        self._running[spec.trial_id] = (spec, self._clock(), None)
        self._at_once = len(self._running)
        self._tell_time_left()

    def measured(self, spec: TrialSpec, measurement: Measurement) -> None:
        _, since, _ = self._running[spec.trial_id]
        self._running[spec.trial_id] = (spec, since, measurement)
        self._tell_time_left()

    def finished(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        _, since, _ = self._running.pop(spec.trial_id)
        seconds = self._clock() - since
        if self._pace is not None and state in _WHOLE:
            self._pace.ended(spec, seconds)
        self._states[spec.trial_id] = state
        if state is TrialState.COMPLETE and outcome.score is not None:
            self._keep_best(spec, outcome.score)
        self._console.print(self._line(spec, state, outcome, seconds))
        self._tell_time_left()

    # Text

    def _keep_best(self, spec: TrialSpec, score: float) -> None:
        key = (spec.arm, spec.size)
        self._best[key] = min(score, self._best.get(key, score))

    def _line(
        self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome, seconds: float
    ) -> Text:
        line = Text(f"[{self._ended():>3}/{self._total()}] {spec.trial_id:<17} ")
        line.append(f"{state.value:<8}", style=_COLOURS[state])
        if outcome.score is not None:
            line.append(f" val {outcome.score:.4f}")
        if outcome.test_loss is not None:
            line.append(f" test {outcome.test_loss:.4f}")
        line.append(f" lr {spec.hyperparameters['learning_rate']:.1e}", style="dim")
        line.append(f" {duration(seconds)}", style="dim")
        if state is TrialState.FAIL:
            line.append(f"\n      {one_line(str(outcome.reason))}", style="red")
        return line

    def _ended(self) -> int:
        return sum(state.has_ended for state in self._states.values())

    def _total(self) -> int:
        return self._plan.trials if self._plan else 0

    def _render(self) -> RenderableType:
        if self._plan is None or not (self._running or self._ended()):
            return Text("")
        return Group(self._cells(), self._running_lines(), self._summary())

    def _cells(self) -> Table:
        assert self._plan is not None
        sizes = sorted({c.size for c in self._plan.cells})
        table = Table(title="Best validation loss so far", title_justify="left", box=None)
        table.add_column("examples", style="dim")
        for size in sizes:
            table.add_column(str(size), justify="right")
        for arm in self._plan.resolved.arms.names:
            best = (self._best.get((arm, size)) for size in sizes)
            table.add_row(arm, *(f"{b:.4f}" if b is not None else "-" for b in best))
        return table

    def _running_lines(self) -> Group:
        lines = []
        for spec, since, measurement in self._running.values():
            done = f"step {measurement.step}/{spec.steps}" if measurement else "starting"
            loss = f", val {measurement.validation_loss:.4f}" if measurement else ""
            passed = duration(self._clock() - since)
            lines.append(Text(f"running {spec.trial_id}: {done}{loss} ({passed})", style="cyan"))
        return Group(*lines)

    def _summary(self) -> Text:
        counts = Counter(self._states.values())
        begun = len(self._running) + counts[TrialState.PAUSED]
        counts[TrialState.WAITING] = self._total() - self._ended() - begun
        text = Text(" ")
        for state in _COLOURS:
            if counts[state]:
                text.append(f" {counts[state]} {state.value.lower()}", style=_COLOURS[state])
        left = self._time_left()
        if left is not None:
            text.append(f"  {left}{self._unless()}")
        return text

    def _unless(self) -> str:
        budget = self._plan.resolved.budget if self._plan else None
        if budget is None or (budget.device_hours is None and budget.wall_hours is None):
            return ""
        return ", unless the budget ends it first"

    def _tell_time_left(self) -> None:
        """A line now and then where there is no terminal to show it all the time."""
        now = self._clock()
        passed = now - self._opened
        if self._console.is_terminal or now - self._told < _interval(passed):
            return
        left = self._time_left()
        if left is not None:
            self._told = now
            line = f"{self._ended()} of {self._total()} trials ended, {left}{self._unless()}"
            self._console.print(Text(line, style="dim"))

    def _time_left(self) -> TimeLeft | None:
        if self._pace is None:
            return None
        now = self._clock()
        return self._pace.left(
            [name for name, state in self._states.items() if state in _OVER],
            {
                name: (now - since, measurement.step if measurement else 0)
                for name, (_, since, measurement) in self._running.items()
            },
            self._at_once,
        )


def _interval(passed: float) -> float:
    """Seconds between two lines of the time left, after so many: a minute at first, half an hour
    at last."""
    return min(max(60.0, passed / 10), 1800.0)
