"""Steps S1 to S5: their points, whatever interrupts a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from study.protocol.search.effort import FRUGAL, Effort, ladder_of, search_cost, steps_of
from study.protocol.search.parameters import Parameter, Space
from study.protocol.search.records import FIRST_FRESH, Chosen, Finished, NextTrials, Planned
from study.protocol.search.steps import next_trials

RHO, ASKED = 0.01, 4000
RATE = Parameter("learning_rate", "float", 1e-5, 1e-4, log=True)
SHARED = (
    RATE,
    Parameter("warmup_ratio", "float", 0.0, 0.1),
    Parameter("max_grad_norm", "float", 0.3, 3.0, log=True),
)
SPACE = Space(SHARED)
STRUCTURE = (
    Parameter("group_size", "choice", choices=(1, 2, 4)),
    Parameter("sweeps", "int", 1, 3),
    Parameter("cumulative", "choice", choices=(False, True)),
    Parameter("phase_steps", "choice", choices=("even",)),
)
Loss = Callable[[Planned], float | None]


def usual(planned: Planned, best: float = 3e-5, curvature: float = 20.0) -> float:
    """Nats: a valley in the log rate, and noise that belongs to the run."""
    away = math.log(float(planned.values["learning_rate"]) / best)
    noise = np.random.default_rng([planned.seed, planned.size]).standard_normal()
    level = 2.0 + 0.1 * math.log2(ASKED / planned.size) ** 0.7
    return level + RHO * (curvature * away**2 + 0.5 * float(noise))


def search(
    loss: Loss = usual, space: Space = SPACE, asked: int = ASKED, effort: Effort | None = None
) -> tuple[Chosen, list[Finished]]:
    finished: list[Finished] = []
    while isinstance(step := next_trials(7, asked, space, finished, RHO, effort), NextTrials):
        finished += [Finished(planned, loss(planned)) for planned in step.trials]
        assert len(finished) < 40
    return step, finished


def rates(finished: list[Finished], step: str) -> list[float]:
    return [float(f.planned.values["learning_rate"]) for f in finished if f.planned.step == step]


def test_the_steps_sizes_and_cost_are_those_of_the_protocol() -> None:
    chosen, finished = search()
    taken = [(f.planned.step, f.planned.size) for f in finished if f.planned.step < "S5"]
    assert taken == [
        *[("S1", 250)] * 6, *[("S1", 500)] * 4, *[("S2", 250)] * 6,
        *[("S3.1", 2000)] * 2, *[("S4.1", 4000)] * 2, *[("S4.2", 4000)] * 2,
    ]  # fmt: skip
    assert 22 <= len(finished) <= 25
    assert search_cost(ASKED, Effort()) == 6.25
    assert {f.planned.subset for f in finished if f.planned.step == "S4.2"} == {1}
    assert max(f.planned.subset for f in finished) < FIRST_FRESH
    assert chosen.inside
    assert math.log(float(chosen.values["learning_rate"]) / 3e-5) == pytest.approx(0, abs=0.2)


def test_a_killed_search_goes_on_with_the_same_points() -> None:
    undisturbed, whole = search()
    wanted = {(f.planned.step, f.planned.index): f for f in whole}
    for kill in range(50):
        random = np.random.default_rng(kill)
        done = [f for f in whole if random.random() < 0.9]
        names = [step.name for step in steps_of(ASKED, Effort())]
        reached = next((n for n in names if sum(f.planned.step == n for f in whole)
                        > sum(f.planned.step == n for f in done)), "S9")  # fmt: skip
        done = [f for f in done if f.planned.step <= reached]
        while isinstance(step := next_trials(
            7, ASKED, SPACE, random.permutation(np.array(done, dtype=object)), RHO
        ), NextTrials):  # fmt: skip
            one = step.trials[int(random.integers(len(step.trials)))]  # one at a time
            assert one == wanted[one.step, one.index].planned
            done.append(wanted[one.step, one.index])
        assert step == undisturbed


def test_both_arms_have_the_same_first_points_and_as_many_trials() -> None:
    _, full = search()
    _, lift = search(space=Space(SHARED + STRUCTURE))
    for one, other in zip(full[:10], lift[:10], strict=True):
        assert one.planned.values.items() <= other.planned.values.items()
        assert (one.planned.seed, one.planned.subset) == (other.planned.seed, other.planned.subset)
    assert abs(len(full) - len(lift)) <= 3


def test_a_rate_that_was_not_tried_at_the_asked_size_is_never_chosen() -> None:
    for best in (3e-6, 1.2e-5, 3e-5, 9e-5, 4e-4):
        chosen, finished = search(lambda p, best=best: usual(p, best))
        at_asked = [
            float(f.planned.values["learning_rate"]) for f in finished if f.planned.size == ASKED
        ]
        assert min(at_asked) <= float(chosen.values["learning_rate"]) <= max(at_asked)
        assert chosen.tried == (min(at_asked), max(at_asked))


def test_the_second_bracket_goes_where_an_optimum_jumped_at_the_asked_size() -> None:
    def jumping(planned: Planned) -> float:
        return usual(planned, 6.5e-5 if planned.size == ASKED else 2.2e-5, 15.0)

    chosen, finished = search(jumping)
    assert min(rates(finished, "S4.2")) > min(rates(finished, "S4.1"))
    assert chosen.inside
    assert math.log(float(chosen.values["learning_rate"]) / 6.5e-5) == pytest.approx(0, abs=0.25)


def test_the_bracket_moves_until_the_choice_is_inside() -> None:
    def falling(planned: Planned) -> float:
        if planned.size < ASKED:
            return usual(planned, 1.5e-5)
        return 2.0 - 10 * RHO * math.log(float(planned.values["learning_rate"]) / 1e-5)

    chosen, finished = search(falling)
    moved = [rates(finished, step)[0] for step in ("S5.1", "S5.2")]
    assert max(rates(finished, "S4.2")) < moved[0] < moved[1]
    assert float(chosen.values["learning_rate"]) >= moved[1]


def test_an_optimum_outside_the_range_is_said_and_not_followed() -> None:
    chosen, finished = search(lambda p: usual(p, 4e-6))
    assert chosen.outer_tenth
    assert chosen.inside  # there is nothing further to try
    assert float(chosen.values["learning_rate"]) < 1.4e-5
    assert len(finished) <= 27


def test_a_bracket_run_that_diverged_runs_once_more_with_another_seed() -> None:
    def once(planned: Planned) -> float | None:
        return None if (planned.step, planned.index) == ("S4.1", 1) else usual(planned)

    chosen, finished = search(once)
    again = [f.planned for f in finished if f.planned.step == "S4.1r"]
    first = next(f.planned for f in finished if (f.planned.step, f.planned.index) == ("S4.1", 1))
    assert [p.values for p in again] == [first.values]
    assert again[0].seed != first.seed
    assert chosen.inside


def test_a_bracket_stays_below_rates_that_diverge() -> None:
    def fragile(planned: Planned) -> float | None:
        return None if float(planned.values["learning_rate"]) > 3.3e-5 else usual(planned, 5e-5)

    chosen, finished = search(fragile)
    assert float(chosen.values["learning_rate"]) <= 3.3e-5
    assert len(finished) <= 27 + 8


def test_a_search_in_which_everything_diverges_ends_and_says_so() -> None:
    chosen, finished = search(lambda planned: None)
    assert not chosen.inside
    assert len(finished) < 40


def test_a_better_structure_is_found() -> None:
    def structured(planned: Planned) -> float:
        values: Mapping[str, Any] = planned.values
        worse = 6.0 * (values["group_size"] != 2) + 3.0 * (3 - int(values["sweeps"]))
        return usual(planned) + RHO * worse

    chosen, _ = search(structured, Space(SHARED + STRUCTURE))
    assert (chosen.values["group_size"], chosen.values["sweeps"]) == (2, 3)
    assert chosen.values["phase_steps"] == "even"


@pytest.mark.parametrize(
    "space",
    [
        Space((Parameter("learning_rate", "choice", choices=(1e-5, 2e-5, 4e-5, 8e-5)),)),
        Space((Parameter("learning_rate", "choice", choices=(3e-5,)), *SHARED[1:])),
        Space((RATE,)),
        Space((Parameter("learning_rate", "float", 1e-6, 1e-3, log=True), *SHARED[1:])),
        Space((Parameter("learning_rate", "float", 1e-5, 1e-4), *SHARED[1:])),
    ],
    ids=["listed rates", "a fixed rate", "the rate alone", "a wide range", "a linear range"],
)
def test_any_space_is_searched(space: Space) -> None:
    chosen, finished = search(space=space)
    assert 1.7e-5 <= float(chosen.values["learning_rate"]) <= 5.2e-5
    assert set(chosen.values) == {p.name for p in space.parameters}
    assert finished


def test_nothing_to_search_is_chosen_at_once() -> None:
    fixed = Space((Parameter("learning_rate", "choice", choices=(3e-5,)),))
    chosen, finished = search(space=fixed)
    assert not finished
    assert chosen.values == {"learning_rate": 3e-5}
    assert chosen.inside


@pytest.mark.parametrize(
    ("asked", "ladder"),
    [
        (4000, (250, 500, 1000, 2000, 4000)),
        (1000, (125, 250, 500, 1000)),
        (256, (64, 128, 256)),
        (32, (8, 16, 32)),
        (3, (2, 3)),
        (1, (1,)),
    ],
)
def test_small_sizes_start_higher(asked: int, ladder: tuple[int, ...]) -> None:
    assert ladder_of(asked) == ladder
    _, finished = search(asked=asked)
    sizes = {f.planned.size for f in finished}
    assert sizes <= set(ladder)
    assert (min(sizes), max(sizes)) == (ladder[0], ladder[-1])


def test_the_frugal_search_costs_two_thirds() -> None:
    _, finished = search(effort=FRUGAL)
    assert 14 <= len(finished) <= 17
    assert search_cost(ASKED, FRUGAL) == pytest.approx(3.875)


def test_a_parameter_that_makes_no_sense_is_refused() -> None:
    for wrong in (
        {"kind": "choice"},
        {"kind": "float", "low": 2.0, "high": 1.0},
        {"kind": "float", "low": 0.0, "high": 1.0, "log": True},
    ):
        with pytest.raises(ValueError, match="x"):
            Parameter("x", **wrong)
    with pytest.raises(ValueError, match="needs the parameter"):
        Space((Parameter("warmup_ratio", "float", 0.0, 0.1),))
    with pytest.raises(ValueError, match="above 0"):
        Space((Parameter("learning_rate", "float", 0.0, 0.1),))
