"""The surface: what it finds in losses whose shape is known."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from study.protocol.search.choice import best_rate, best_values, bracket_of, regret_of, rise_from
from study.protocol.search.parameters import Parameter, Space, Trial
from study.protocol.search.surface import OUTLIER, Surface, excess_of

RHO, ASKED = 0.01, 1600
SPACE = Space(
    (
        Parameter("learning_rate", "float", 1e-5, 1e-4, log=True),
        Parameter("warmup_ratio", "float", 0.0, 0.1),
    )
)
BEST = math.log(3e-5)
NOISE = 0.3


def excess(size: int, log_rate: float, warmup: float) -> float:
    """Rho: 20 per squared e-fold, the best rate falling by 5 % with each doubling."""
    away = log_rate - (BEST - 0.05 * math.log2(size / ASKED))
    return 20 * away**2 + (warmup / 0.1 - 0.5) ** 2


def trials(noise: float = NOISE, seed: int = 0) -> list[Trial]:
    random = np.random.default_rng(seed)
    found = []
    places = [(100, r, w) for r in (1.2, 2, 3, 4.5, 7, 9) for w in (0.01, 0.09)]
    places += [(n, r, 0.05) for n in (200, 400, 800, 1600, 1600) for r in (2.0, 4.2)]
    for place, (size, rate, warmup) in enumerate(places):
        rate *= 1e-5
        own = excess(size, math.log(rate), warmup) + noise * float(random.standard_normal())
        values = {"learning_rate": rate, "warmup_ratio": warmup}
        level = 3.0 - 0.1 * math.log2(size)
        subset = int(size == ASKED and place >= len(places) - 2)
        found.append(Trial(size, values, level + RHO * own, subset))
    return found


def surface(of: list[Trial]) -> Surface:
    return Surface(SPACE, ASKED, of, RHO)


def test_the_best_rate_at_the_asked_size_is_found_within_noise() -> None:
    missed = []
    for seed in range(12):
        fitted = surface(trials(seed=seed))
        values = best_values(fitted)
        bracket = bracket_of(fitted)
        rate = best_rate(fitted, ASKED, values, bracket.low, bracket.high)
        missed.append(excess(ASKED, rate, float(values["warmup_ratio"])))
    assert np.mean(missed) < 0.15
    assert max(missed) < 0.5


def test_losses_that_are_all_higher_change_nothing() -> None:
    of = trials()
    higher = [replace(t, loss=(t.loss or 0.0) + 1.0) for t in of]
    grid, values = np.linspace(BEST - 0.3, BEST + 0.3, 7), {"warmup_ratio": 0.05}
    found = [surface(t).predict(ASKED, grid, values) for t in (of, higher)]
    np.testing.assert_allclose(found[0].mean, found[1].mean, atol=1e-6)
    np.testing.assert_allclose(found[0].covariance, found[1].covariance, atol=1e-6)


def test_the_posterior_is_surer_where_there_are_trials() -> None:
    fitted = surface(trials())
    grid, values = np.array([math.log(2e-5), math.log(9.5e-5)]), {"warmup_ratio": 0.05}
    slope = fitted.predict(ASKED, np.append(grid, BEST), values).covariance
    to_best = [slope[i, i] + slope[2, 2] - 2 * slope[i, 2] for i in range(2)]
    assert to_best[0] < to_best[1] / 4


def test_one_loss_that_is_far_too_high_hardly_counts() -> None:
    of = trials()
    spoilt = list(of)
    spoilt[-1] = replace(of[-1], loss=(of[-1].loss or 0.0) + 30 * RHO)
    fitted = surface(spoilt)
    assert fitted.outliers == (len(of) - 1,)
    values = {"warmup_ratio": 0.05}
    rates = [best_rate(surface(t), ASKED, values, BEST - 0.5, BEST + 0.5) for t in (of, spoilt)]
    assert rates[0] == pytest.approx(rates[1], abs=0.1)
    assert surface(of).outliers == ()
    assert OUTLIER == 3.3


def test_outliers_are_at_most_a_sixth() -> None:
    random = np.random.default_rng(2)
    of = [
        replace(t, loss=(t.loss or 0.0) + RHO * 60 * float(random.random() < 0.4)) for t in trials()
    ]
    assert len(surface(of).outliers) <= len(of) / 6


def at_rate(rate: float, loss: float | None) -> Trial:
    return Trial(ASKED, {"learning_rate": rate, "warmup_ratio": 0.05}, loss)


def test_nothing_is_chosen_above_the_lowest_rate_that_diverged() -> None:
    low = [t for t in trials() if t.values["learning_rate"] < 2.5e-5]
    fitted = surface([*low, at_rate(2.7e-5, None)])
    assert fitted.highest == pytest.approx(math.log(2.7e-5) - 0.08)
    assert best_rate(fitted, ASKED, {"warmup_ratio": 0.05}, BEST - 1, BEST + 1) <= fitted.highest


def test_unless_two_runs_as_high_went_well() -> None:
    high = math.log(1e-4)
    assert surface([*trials(), at_rate(8e-5, None)]).highest == pytest.approx(high)
    assert surface([*trials(), at_rate(9.5e-5, None)]).highest < high


def test_a_bracket_ends_where_the_surface_has_risen() -> None:
    near = [t for t in trials(noise=0.05) if 1.5e-5 < t.values["learning_rate"] < 5e-5]
    rise = rise_from(surface(near), ASKED, BEST, {"warmup_ratio": 0.05})
    assert rise.curvature == pytest.approx(20, rel=0.3)
    flat = [replace(t, loss=3.0 - 0.1 * math.log2(t.size)) for t in trials()]
    assert rise_from(surface(flat), ASKED, BEST, {"warmup_ratio": 0.05}).left == 0.6


def test_regret_is_that_of_the_choice_and_drawn_from_a_seed() -> None:
    fitted, values = surface(trials()), {"warmup_ratio": 0.05}
    bracket = bracket_of(fitted)
    rate = best_rate(fitted, ASKED, values, bracket.low, bracket.high)
    regret = regret_of(fitted, rate, values, bracket, seed=1)
    assert 0.0 <= regret < 0.5
    assert regret == regret_of(fitted, rate, values, bracket, seed=1)
    assert regret_of(fitted, bracket.low, values, bracket, seed=1) > regret + 1.0


def test_losses_far_above_the_lowest_are_compressed_and_back() -> None:
    fitted = surface(trials())
    lowest = min(t.loss or 9.0 for t in fitted.trials if t.size == 100)
    wanted = [((t.loss or 0.0) - lowest) / RHO for t in fitted.trials if t.size == 100]
    assert excess_of(fitted.response[: len(wanted)]) == pytest.approx(wanted)


def test_a_search_in_which_everything_diverged_has_no_surface() -> None:
    with pytest.raises(ValueError, match="every trial diverged"):
        surface([at_rate(1e-5, None), at_rate(2e-5, math.nan)])


def test_a_fit_takes_milliseconds() -> None:
    of = trials() + trials(seed=1)[:5]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        surface(of)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05
