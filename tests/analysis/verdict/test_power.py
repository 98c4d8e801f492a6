"""Predicted power against a brute force that draws data and fits the real curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from study.analysis.curve.fit import Curve, PairedLosses, split_covariance
from study.analysis.curve.noise import (
    SplitNoise,
    assumed_noise,
    noise_on_record,
    search_luck,
    split_error,
)
from study.analysis.rules import ENOUGH, LEANING
from study.analysis.verdict.gates import plan_gates
from study.analysis.verdict.power import middle_size, power_at, predict_power
from study.cli.examples.templates import TEMPLATES, render_template
from study.config.load import StudyConfig
from study.protocol.extension import extension
from study.protocol.records import BaseModelRecord
from tests.helpers.results import make_config

RHO = 0.01
NO_SPLIT_ERROR = SplitNoise(10_000, 0.0, "assumed")


def config_of(
    sizes: tuple[int, ...] = (250, 500, 1000, 2000),
    replicates: int = 4,
    seeds: int = 2,
    trials: int = 8,
) -> StudyConfig:
    return make_config(sizes=sizes, replicates=replicates, trials=trials, confirm_seeds=seeds)


def draw_curve(
    config: StudyConfig, truth: float, split_sd: float, examples: int, random: np.random.Generator
) -> Curve:
    """A study's curve, run by run: what the default noise says, written out."""
    replicates, seeds = config.search.replicates, config.confirm.seeds
    sizes = np.repeat(np.array(config.dataset_sizes, float), replicates)
    points, sd = len(sizes), RHO / 2
    losses = {}
    for arm in ("full", "lift"):
        search = random.uniform(0, 2 * RHO, (points, config.search.trials)).min(axis=1)
        subset = random.normal(0, sd, points)
        losses[arm] = (search + subset)[:, None] + random.normal(0, sd, (points, seeds))
    test = random.normal(0, split_sd, examples)
    gaps = truth + losses["full"] - losses["lift"] + test.mean()
    covariance = np.zeros((points, points))
    if split_sd:
        covariance, _ = split_covariance(gaps.mean(axis=1)[:, None] + test, np.ones(examples))
    return Curve(
        PairedLosses(
            sizes=sizes,
            differences=gaps.mean(axis=1),
            pairs=np.full(points, seeds),
            scatter=((gaps - gaps.mean(axis=1, keepdims=True)) ** 2).sum(axis=1),
            test_covariance=covariance,
            test_examples=examples,
        )
    )


@pytest.mark.parametrize(
    ("shape", "split_sd"),
    [
        ({"replicates": 3}, 0.0),
        ({"replicates": 6, "seeds": 1, "trials": 2}, 0.0),
        ({"sizes": (250, 500, 1000, 2000, 4000), "replicates": 4}, 0.05),
    ],
)
def test_power_is_that_of_studies_drawn_run_by_run(shape: dict, split_sd: float) -> None:
    config, examples, studies = config_of(**shape), 400, 1200
    random = np.random.default_rng(0)
    places = np.array([middle_size(config), config.dataset_sizes[-1]], float)
    claims, claims_at_rho, leans, widths = (np.zeros(2) for _ in range(4))
    for _ in range(studies):
        found = draw_curve(config, 2 * RHO, split_sd, examples, random).at(places)
        claims += found.probability_above(RHO) >= 0.95
        # A study whose D is lower by rho is the same study, moved.
        claims_at_rho += found.probability_above(2 * RHO) >= 0.95
        leans += found.probability_above(RHO) >= LEANING
        widths += (found.high - found.low) / 2
    noise = assumed_noise(config.search.trials)
    split = SplitNoise(examples, split_sd / examples**0.5, "assumed")
    for k, place in enumerate(places):
        told = power_at(config, int(place), noise, split)
        assert not told.failed
        assert told.claim == pytest.approx(claims[k] / studies, abs=0.035)
        assert told.claim_at_rho == pytest.approx(claims_at_rho[k] / studies, abs=0.02)
        assert told.lean_at_rho == pytest.approx(leans[k] / studies, abs=0.035)
        assert told.half_width == pytest.approx(widths[k] / studies, rel=0.05)


def claim(split: SplitNoise = NO_SPLIT_ERROR, **shape: object) -> float:
    config = config_of(**shape)  # type: ignore[arg-type]
    return predict_power(config, assumed_noise(8), split).middle.claim


def test_power_grows_with_sizes_replicates_seeds_trials_and_test_examples() -> None:
    fours, fives = (250, 500, 1000, 2000), (250, 420, 710, 1200, 2000)
    assert claim(sizes=fours) < claim(sizes=fives)
    by_replicates = [claim(replicates=m) for m in (3, 4, 5, 6, 8)]
    assert by_replicates == sorted(by_replicates) and by_replicates[-1] - by_replicates[0] > 0.2
    by_seeds = [claim(seeds=r) for r in (2, 3, 4, 8)]
    assert by_seeds == sorted(by_seeds) and by_seeds[-1] - by_seeds[0] > 0.02
    by_trials = [claim(trials=b) for b in (1, 2, 4, 8, 16)]
    assert by_trials == sorted(by_trials) and by_trials[-1] - by_trials[0] > 0.2
    small = SplitNoise(200, RHO / 2, "assumed")
    by_examples = [claim(small.with_examples(n)) for n in (200, 800, 3200)]
    assert by_examples == sorted(by_examples) and by_examples[-1] - by_examples[0] > 0.2


@pytest.mark.parametrize(
    ("shape", "gate"),
    [
        ({"sizes": (250, 500, 2000), "replicates": 9}, "Dataset sizes"),
        ({"sizes": (250, 300, 350, 400), "replicates": 9}, "Dataset sizes"),
        ({"sizes": (2000,), "replicates": 9}, "Dataset sizes"),
        ({"replicates": 2, "seeds": 9}, "Confirm runs"),
        ({"replicates": 5, "seeds": 1}, "Confirm runs"),
        ({"replicates": 5, "seeds": 0}, "Confirm runs"),
    ],
)
def test_a_plan_that_fails_a_gate_has_no_power_and_names_it(shape: dict, gate: str) -> None:
    config = config_of(**shape)
    found = predict_power(config, assumed_noise(8), NO_SPLIT_ERROR)
    for place in (found.middle, found.largest):
        assert (place.claim, place.claim_at_rho, place.lean_at_rho) == (0, 0, 0)
        assert [g.name for g in place.failed] == [gate]
    # The advice mends it, and is an edit that a study with results may make.
    assert found.advice is not None and found.advised is not None and found.advised >= ENOUGH
    assert extension(config, found.advice.after)
    after = predict_power(found.advice.after, assumed_noise(8), NO_SPLIT_ERROR)
    assert after.middle.claim == pytest.approx(found.advised) and not after.middle.failed
    assert after.advice is None


def test_noise_that_no_growth_overcomes_has_no_advice() -> None:
    noise = replace(assumed_noise(8), between=(20 * RHO) ** 2)
    found = predict_power(config_of(), noise, NO_SPLIT_ERROR)
    assert found.advice is None and found.middle.claim < 0.2


def test_raising_rho_raises_the_chance_of_a_verdict() -> None:
    claims = []
    for rho in (0.005, 0.01, 0.02, 0.04):
        config = config_of()
        config = config.model_copy(
            update={"decision": config.decision.model_copy(update={"rho": rho})}
        )
        claims.append(predict_power(config, assumed_noise(8), NO_SPLIT_ERROR).largest.claim)
    assert claims == sorted(claims) and claims[0] < 0.4 and claims[-1] > 0.99


def test_assumed_noise_is_five_thousandths_of_a_nat_per_effect_and_arm() -> None:
    noise = assumed_noise(8)
    # 100,000 searches of eight trials, losses anywhere within 2 rho.
    lowest = np.random.default_rng(0).uniform(0, 2 * RHO, (100_000, 8)).min(axis=1)
    assert search_luck(2 * RHO, 8) == pytest.approx(lowest.var(), rel=0.02)
    assert noise.within == pytest.approx(2 * 0.005**2)
    assert noise.between == pytest.approx(2 * 0.005**2 + 2 * lowest.var(), rel=0.01)
    assert noise.of_point(8, 2) == pytest.approx(noise.between + noise.within / 2)
    least = 2 * 0.005**2 + noise.within
    assert noise.of_point(10_000, 1) == pytest.approx(least, rel=1e-3)


def test_replicates_on_record_update_the_noise() -> None:
    config, random = config_of(replicates=60, trials=4), np.random.default_rng(3)
    quiet = draw_curve(config, 0.0, 0.0, 10, random)
    found = noise_on_record(4, quiet)
    assert found.freedom == quiet.freedom == 237
    assert found.between == pytest.approx(assumed_noise(4).between, rel=0.3)
    assert found.within == pytest.approx(assumed_noise(4).within, rel=0.2)
    loud = Curve(
        replace(
            quiet.paired,
            differences=3 * quiet.paired.differences,
            scatter=9 * quiet.paired.scatter,
        )
    )
    louder = noise_on_record(4, loud)
    assert louder.between == pytest.approx(9 * found.between, rel=0.1)
    assert louder.within == pytest.approx(9 * found.within, rel=0.1)
    assert noise_on_record(4, None) == assumed_noise(4)


def test_the_split_error_comes_from_runs_then_the_base_model_then_a_guess() -> None:
    random = np.random.default_rng(4)
    curve = draw_curve(config_of(), 0.0, 0.08, 500, random)
    runs = split_error("causal-lm", 2000, curve, BaseModelRecord(1, 1, None, (1.0, 2.0)))
    assert runs.source == "runs" and runs.examples == 2000
    assert runs.error == pytest.approx(0.08 / 2000**0.5, rel=0.1)
    losses = tuple(random.normal(2, 0.5, 400).tolist())
    base = split_error("causal-lm", 100, None, BaseModelRecord(2, 2, None, losses))
    assert base.source == "base"
    assert base.error == pytest.approx((2 * 0.01) ** 0.5 * 0.5 / 10, rel=0.1)
    # A class prior's losses say nothing of a classifier's.
    guess = split_error("sequence-classification", 100, None, BaseModelRecord(2, 2, None, losses))
    assert guess.source == "assumed" and guess.error > base.error


def test_a_small_test_split_says_how_many_examples_would_do() -> None:
    split = SplitNoise(300, 0.01, "runs")
    found = predict_power(config_of(), assumed_noise(8), split)
    assert found.test_examples_needed == 300 * 16
    enough = split.with_examples(300 * 16)
    assert enough.error == pytest.approx(found.split_limit)
    done = predict_power(config_of(), assumed_noise(8), split.with_examples(4801))
    assert done.test_examples_needed is None


def template_config(name: str, **paths: str) -> StudyConfig:
    text = yaml.safe_load(render_template(name, **paths))
    return config_of(
        tuple(text["dataset_sizes"]),
        text["search"]["replicates"],
        text["confirm"]["seeds"],
        text["search"]["trials"],
    )


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n != "demo"])
def test_a_template_can_answer(name: str) -> None:
    """Power of .80 at 2 rho in the middle of the sizes, the test split's error at its limit."""
    config = template_config(name)
    at_limit = SplitNoise(1000, RHO / 4, "assumed")
    found = predict_power(config, assumed_noise(config.search.trials), at_limit)
    assert found.middle.claim >= ENOUGH and found.advice is None
    assert not found.largest.failed
    assert found.largest.claim > 0.5


def test_the_demo_passes_the_gates_of_its_plan() -> None:
    config = template_config("demo", model="m", task="t", general="g")
    for size in config.dataset_sizes:
        assert all(gate.status == "pass" for gate in plan_gates(config, size))
