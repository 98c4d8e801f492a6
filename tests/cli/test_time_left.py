"""The time a study still takes: by hand, and as lines where there is no terminal."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from study.cli.live import LiveView
from study.cli.time_left import Pace
from study.orchestration.preflight.spread import spread
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import TrialOutcome, TrialSpec, TrialState
from tests.helpers.results import make_config
from tests.helpers.stores import measurement


def make_plan(**changes: Any) -> StudyPlan:
    shape: dict[str, Any] = {
        "arms": ("full",), "sizes": (800, 1600), "trials": 2, "replicates": 1, "confirm_seeds": 1,
    }  # fmt: skip
    return plan_trials(make_config(**(shape | changes)), ModelFacts(4))


def specs_of(plan: StudyPlan) -> dict[str, TrialSpec]:
    return {spec.trial_id: spec for spec in plan.search}


def test_trials_take_as_long_as_their_like_and_by_their_steps_where_none_has_ended() -> None:
    plan = make_plan()
    pace, specs = Pace(plan), specs_of(plan)
    assert pace.left([], {}, 1) is None
    small = [specs["full-n800-r0-s0"], specs["full-n800-r0-s1"]]
    assert (small[0].steps, specs["full-n1600-r0-s0"].steps) == (300, 600)
    for spec, seconds in zip(small, (90.0, 110.0), strict=True):
        pace.ended(spec, seconds)
    # One confirm trial of 100 s; at twice the size three of 200 s, of which one has run for 50 s.
    found = pace.left([s.trial_id for s in small], {"full-n1600-r0-s0": (50.0, 0)}, 1)
    assert found is not None and found.seconds == pytest.approx(100 + 3 * 200 - 50)
    several = pace.left([s.trial_id for s in small], {"full-n1600-r0-s0": (50.0, 0)}, 2)
    assert several is not None and several.seconds == pytest.approx(650 / 2)
    # No number of slots makes a single trial shorter.
    many = pace.left([s.trial_id for s in small], {}, 50)
    assert many is not None and many.seconds == pytest.approx(200)


def test_a_running_trial_tells_before_any_has_ended() -> None:
    pace = Pace(make_plan(sizes=(800,), trials=1))
    assert pace.left([], {"full-n800-r0-s0": (30.0, 0)}, 1) is None
    # A tenth of its steps in 30 s: 300 s each, for it and its confirm trial.
    found = pace.left([], {"full-n800-r0-s0": (30.0, 30)}, 1)
    assert found is not None and found.seconds == pytest.approx(300 - 30 + 300)


def test_the_range_narrows_as_trials_end_alike() -> None:
    widths = [spread([[1.0] * ended], 50) for ended in (1, 4, 40)]
    assert widths == sorted(widths, reverse=True) and widths[-1] > 1.05
    assert widths[0] > spread([], 50) > widths[1], "one trial says less than a probe's steps"
    assert spread([[0.5, 2.0] * 4], 50) > spread([[0.9, 1.1] * 4], 50)
    assert spread([[1.0] * 8], 1) > spread([[1.0] * 8], 100), "one trial alone scatters more"
    # Two kinds of trials of different cost are no scatter.
    assert spread([[1.0] * 4, [7.0] * 4], 50) == pytest.approx(spread([[1.0] * 8], 50), rel=0.05)


def test_nine_of_ten_totals_lie_in_the_range() -> None:
    """Trials that scatter by 30 %, at a pace that is off by as much as drift may be."""
    import numpy as np

    random, inside = np.random.default_rng(0), 0
    for _ in range(600):
        ended = np.exp(random.normal(0, 0.3, 12))
        rest = np.exp(random.normal(0, 0.3, 30)).sum() * math.exp(random.normal(0, 0.05))
        forecast, factor = ended.mean() * 30, spread([ended.tolist()], 30)
        inside += forecast / factor <= rest <= forecast * factor
    assert 0.85 <= inside / 600 <= 0.96


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(plan: StudyPlan, clock: Clock, seconds: float, terminal: bool = False) -> str:
    """What a view prints while a study's search trials end, one after the other."""
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=terminal, highlight=False)
    view = LiveView(console, clock)
    view.planned(plan, ())
    for spec in plan.search:
        view.started(spec)
        clock.now += seconds / 2
        view.measured(spec, measurement(spec.steps // 2, 3.0))
        clock.now += seconds / 2
        view.finished(spec, TrialState.COMPLETE, TrialOutcome("finished", score=3.0))
    return output.getvalue()


def test_without_a_terminal_a_line_tells_the_time_left_now_and_then() -> None:
    plan = make_plan(sizes=(800,), trials=30)
    text = run(plan, Clock(), 20.0)
    lines = [line for line in text.splitlines() if " left (" in line]
    # Ten minutes of search at a line a minute.
    assert 8 <= len(lines) <= 10
    assert lines[0].startswith("3 of 31 trials ended, about 9 min 20 s left (9 of 10 such studies:")
    assert "left (" not in run(plan, Clock(), 1.0), "half a minute is too short for any"
    long = run(plan, Clock(), 3600.0)
    assert 30 <= sum(" left (" in line for line in long.splitlines()) <= 60
    first = next(line for line in long.splitlines() if " left (" in line)
    assert first.startswith("0 of 31 trials ended, about 30 h 30 min left"), "half of one has run"


def test_a_budget_may_end_it_first() -> None:
    plan = make_plan(sizes=(800,), trials=5, budget={"wall_hours": 1})
    assert "left (" in run(plan, Clock(), 100.0)
    assert run(plan, Clock(), 100.0).count("unless the budget ends it first") >= 3
    assert "budget" not in run(make_plan(sizes=(800,), trials=5), Clock(), 100.0)
