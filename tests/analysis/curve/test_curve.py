"""The fitted difference: its variance against a plain reading of the formulas, and its coverage
over simulated studies whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from study.analysis.curve.fit import Curve, PairedLosses, degree_for, split_covariance

SIZES = np.repeat([64.0, 128.0, 256.0, 512.0, 1024.0], 3)
ASKED = np.array([64.0, 300.0, 1024.0])


def make_paired(
    differences: np.ndarray,
    sizes: np.ndarray = SIZES,
    scatter: np.ndarray | None = None,
    pairs: int = 2,
    examples: np.ndarray | None = None,
) -> PairedLosses:
    points = len(sizes)
    covariance, independent = np.zeros((points, points)), 1000
    if examples is not None:
        covariance, independent = split_covariance(examples, np.ones(examples.shape[1]))
    return PairedLosses(
        sizes=sizes,
        differences=np.asarray(differences, float),
        pairs=np.full(points, pairs),
        scatter=np.zeros(points) if scatter is None else scatter,
        test_covariance=covariance,
        test_examples=independent,
    )


def noisy(
    seed: int, truth: Callable[[float], float] = lambda n: 0.0, sd: float = 0.01
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.array([truth(n) for n in SIZES]) + generator.normal(0, sd, len(SIZES))


def test_variance_and_degrees_of_freedom_are_hc2_and_bell_mccaffrey() -> None:
    """With the plain design matrix, loops and the matrices of the papers."""
    values = noisy(0)
    found = Curve(make_paired(values)).at(ASKED)
    design = np.vander(np.log2(SIZES), 3)
    bread = np.linalg.inv(design.T @ design)
    hat = design @ bread @ design.T
    residuals = values - hat @ values
    residual_maker = np.eye(len(values)) - hat
    for i, size in enumerate(ASKED):
        asked = np.vander([np.log2(size)], 3)[0]
        meat = sum(
            np.outer(row, row) * r**2 / (1 - h)
            for row, r, h in zip(design, residuals, np.diag(hat), strict=True)
        )
        variance = asked @ bread @ meat @ bread @ asked
        weights = asked @ bread @ design.T
        form = residual_maker @ np.diag(weights**2 / (1 - np.diag(hat))) @ residual_maker
        # Bell and McCaffrey under equal noise, and under the noise of each size.
        squares = residuals**2 / (1 - np.diag(hat))
        own = [(squares[n == SIZES].sum() + 2 * squares.mean()) / 5 for n in SIZES]
        freedom = min(
            np.trace(form @ np.diag(noise)) ** 2
            / np.trace(form @ np.diag(noise) @ form @ np.diag(noise))
            for noise in (np.ones(len(SIZES)), own)
        )
        estimate = asked @ bread @ design.T @ values
        reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
        assert found.difference[i] == pytest.approx(estimate, abs=1e-10)
        assert found.error[i] == pytest.approx(np.sqrt(variance), rel=1e-6)
        assert found.freedom[i] == pytest.approx(freedom, rel=1e-6)
        assert found.high[i] == pytest.approx(estimate + reach, rel=1e-6)


def test_one_size_is_a_t_interval() -> None:
    values = np.array([0.01, 0.03, -0.01, 0.02])
    curve = Curve(make_paired(values, np.full(4, 100.0)))
    found = curve.at(100)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (found.low[0], found.high[0]) == pytest.approx((low, high))
    assert found.probability_above(0.0)[0] == pytest.approx(
        1 - stats.ttest_1samp(values, 0, alternative="greater").pvalue
    )
    assert found.probability_below(0.005)[0] == pytest.approx(
        1 - stats.ttest_1samp(values, 0.005, alternative="less").pvalue
    )
    assert curve.crossover().kind == "unidentified"


def test_the_curve_bends_from_eight_points_on() -> None:
    assert degree_for([1, 2, 4, 8] * 2) == 2
    assert degree_for([1, 2, 4, 8, 1, 2, 4]) == 1
    assert degree_for([1, 2] * 5) == 1
    assert degree_for([5, 5, 5]) == 0


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="2 points for 2 terms"):
        Curve(make_paired(np.zeros(2), np.array([10.0, 20.0])))


def test_swapped_arms_turn_everything_round() -> None:
    values = noisy(1, lambda n: 0.02 * (8 - np.log2(n)))
    ours, theirs = Curve(make_paired(values)), Curve(make_paired(-values))
    np.testing.assert_allclose(ours.at(ASKED).low, -theirs.at(ASKED).high, rtol=1e-9)
    np.testing.assert_allclose(
        ours.at(ASKED).probability_above(0.01), theirs.at(ASKED).probability_below(-0.01), rtol=1e-9
    )
    here, there = ours.crossover(), theirs.crossover()
    assert here.kind == there.kind == "crossover"
    assert (here.small, there.small) == ("challenger", "reference")
    assert (here.low, here.high) == pytest.approx((there.low, there.high))
    assert here.low is not None and here.high is not None and here.low < 256 < here.high


def test_the_band_decides_who_is_better_throughout() -> None:
    assert Curve(make_paired(noisy(2, lambda n: 0.1))).crossover().kind == "challenger"
    assert Curve(make_paired(noisy(2, lambda n: -0.1))).crossover().kind == "reference"
    assert Curve(make_paired(noisy(2))).crossover().kind == "unidentified"


def test_equal_results_have_no_error_and_no_opinion() -> None:
    found = Curve(make_paired(np.zeros(15))).at(ASKED)
    assert found.error.tolist() == [0, 0, 0]
    assert found.probability_above(0.0).tolist() == [0.5] * 3
    assert found.probability_above(0.01).tolist() == [0.0] * 3


def test_seeds_set_a_floor_to_the_scatter_of_replicates() -> None:
    curve = Curve(make_paired(np.zeros(15), scatter=np.full(15, 2e-4)))
    assert curve.within_variance == pytest.approx(2e-4)
    assert curve.variance == pytest.approx(1e-4)
    found = curve.one_run(ASKED)
    np.testing.assert_allclose(found.error**2, 1e-4 + 2e-4 * 0.5)


def test_test_split_error_is_that_of_a_ratio_and_of_sources() -> None:
    generator = np.random.default_rng(3)
    values, weights = generator.normal(0, 1, (2, 400)), generator.integers(1, 20, 400)
    covariance, independent = split_covariance(values, weights)
    assert independent == 400
    # The jackknife says the same of any ratio.
    rest = weights.sum() - weights
    left = (values @ weights)[:, None] - values * weights
    without = left / rest
    deviations = without - without.mean(axis=1, keepdims=True)
    jackknife = deviations @ deviations.T * 399 / 400
    np.testing.assert_allclose(covariance, jackknife, rtol=0.05, atol=2e-5)
    doubled = np.repeat(values, 2, axis=1)
    sources = [str(i // 2) for i in range(800)]
    clustered, sources_count = split_covariance(doubled, np.repeat(weights, 2), sources)
    assert sources_count == 400
    np.testing.assert_allclose(clustered, covariance, rtol=1e-9)


def test_lack_of_fit_finds_a_step_that_no_parabola_follows() -> None:
    smooth = Curve(make_paired(noisy(4, lambda n: 0.01 * np.log2(n))))
    step = Curve(make_paired(noisy(4, lambda n: 0.2 if n in (128, 512) else 0.0)))
    found = smooth.lack_of_fit()
    assert found is not None and found[1] > 0.05
    found = step.lack_of_fit()
    assert found is not None and found[0] > 0.05 and found[1] < 1e-4
    assert Curve(make_paired(np.arange(4.0), np.full(4, 9.0))).lack_of_fit() is None


@pytest.mark.parametrize("small_noise", [1.0, 3.0])
def test_intervals_cover_the_truth_with_noise_that_is_larger_at_small_sizes(
    small_noise: float,
) -> None:
    """1,500 studies whose test split errs as much as their replicates do."""
    generator = np.random.default_rng(5)
    studies, asked = 1500, np.array([64.0, 256.0, 1024.0])
    scale = np.where(SIZES == 64, small_noise, 1.0) * 0.01
    hits = np.zeros(3)
    blind_hits = np.zeros(3)
    for _ in range(studies):
        truth = 0.02 * (8 - np.log2(SIZES))
        test = generator.normal(0, 0.1, 300)
        values = truth + generator.normal(0, 1, len(SIZES)) * scale + test.mean()
        examples = values[:, None] + (test - test.mean())
        curve = Curve(make_paired(values, examples=examples))
        found, blind = curve.at(asked), Curve(make_paired(values)).at(asked)
        aim = 0.02 * (8 - np.log2(asked))
        hits += (found.low <= aim) & (aim <= found.high)
        blind_hits += (blind.low <= aim) & (aim <= blind.high)
    assert ((hits / studies > 0.92) & (hits / studies < 0.985)).all(), hits / studies
    # Leaving the test split out of account is what must not pass.
    assert (blind_hits / studies)[1] < 0.9, blind_hits / studies
