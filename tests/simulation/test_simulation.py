"""The verdict on studies whose truth is known, and mutants of it that have to miss a target.

Few studies, so each share may miss its target by what chance does to it; seeds are fixed. The long
form, `python -m tests.simulation`, has the targets as they are.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import pytest

from study.analysis import Evidence
from study.analysis.summary import gather_evidence
from study.protocol.results import StudyResults
from tests.simulation import mutants
from tests.simulation.landscape import Noise
from tests.simulation.reading import Reading, read_evidence
from tests.simulation.scenarios import SCENARIOS, PlanShape, Scenario
from tests.simulation.studies import run_study, simulate
from tests.simulation.tally import Tally, judged
from tests.simulation.world import World

CHANCE = 3.0
"""Standard errors."""
SMALL = PlanShape(replicates=3, trials=4, study_seeds=16)
ASKED = (250, 1000, 4000)


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection() -> Iterator[None]:
    """Records hold no cycles; looking for some takes as long as all the rest."""
    gc.disable()
    yield
    gc.enable()


def short(name: str, **changes: object) -> Scenario:
    return replace(SCENARIOS[name], **{"plan": SMALL, **changes})  # type: ignore[arg-type]


def unchanged(evidence: Evidence) -> Evidence:
    return evidence


def tallies(
    scenario: Scenario,
    studies: int,
    analyses: Mapping[str, mutants.EvidenceMutant],
    through: Callable[[World], StudyResults] | None = None,
    change_plan: Callable[..., object] | None = None,
) -> dict[str, Tally]:
    """One tally per analysis, of the same studies; `picker` joins them."""
    truths, readings = [], {name: list[Reading]() for name in (*analyses, "picker")}
    more = {} if change_plan is None else {"change_plan": change_plan}
    for world, results in simulate(scenario, range(studies), through, **more):  # type: ignore[arg-type]
        truths.append([world.difference(size) for size in ASKED])
        evidence = gather_evidence(results)
        for name, analysis in analyses.items():
            readings[name].append(read_evidence(analysis(evidence), ASKED))
        if "picker" in readings and scenario.plan.pruner == "none":
            readings["picker"].append(mutants.best_validation_picker(results, ASKED))
    return {name: Tally(scenario, truths, found) for name, found in readings.items() if found}


def missed(tally: Tally) -> set[str]:
    """Judged quantities that miss their targets by more than chance."""
    found = judged(tally, CHANCE, studies_per_bin=40)
    return {f.name.partition(" at ")[0] for f in found if f.passes is False}


def shown(tally: Tally) -> dict[str, str]:
    return {f.name: f.text for f in judged(tally, CHANCE, studies_per_bin=40)}


@cache
def noisy_small_sizes() -> dict[str, Tally]:
    scenario = short("crossover", noise=Noise(smallest=4.0, split=0.25))
    return tallies(
        scenario,
        130,
        {"real": unchanged, "pooled variance": mutants.pooled_variance},
    )


@cache
def decay_to_zero() -> dict[str, Tally]:
    return tallies(
        short("decay to zero"),
        130,
        {
            "real": unchanged,
            "straight line": mutants.straight_line,
            "percentile bootstrap": mutants.percentile_bootstrap,
        },
    )


@cache
def cheaper_but_worse() -> dict[str, Tally]:
    plan = replace(SMALL, basis="tokens")
    scenario = short("cheaper, worse by rho", plan=plan, noise=Noise(split=0.5))
    analyses = {"real": unchanged, "split error ignored": mutants.split_error_ignored}
    return tallies(scenario, 140, analyses)


@cache
def nothing_learned() -> dict[str, Tally]:
    return tallies(short("LIFT learns nothing, full gets worse"), 30, {"real": unchanged})


def test_intervals_hold_the_truth_with_noisier_small_sizes_and_a_small_test_split() -> None:
    tally = noisy_small_sizes()["real"]
    assert not missed(tally), shown(tally)


def test_a_difference_that_decays_to_zero_has_no_crossover_and_is_covered() -> None:
    tally = decay_to_zero()["real"]
    assert not missed(tally), shown(tally)


def test_an_arm_that_is_worse_by_rho_is_seldom_called_better_or_cheaper_and_no_worse() -> None:
    tally = cheaper_but_worse()["real"]
    assert not missed(tally), shown(tally)
    assert "cheaper:lift" in tally.answers(1000)  # it could have been


def test_an_arm_that_learned_nothing_is_never_recommended() -> None:
    tally = nothing_learned()["real"]
    assert not missed(tally), shown(tally)
    assert "Learning 1.000" in tally.failed_gates()


def test_the_usual_plan_finds_twice_rho_in_the_middle_of_the_range() -> None:
    usual = replace(PlanShape(), study_seeds=6)
    tally = tallies(short("D = 2 rho", plan=usual), 60, {"real": unchanged})["real"]
    assert dict(tally.power()).keys() == set(ASKED)
    assert not missed(tally), shown(tally)


def test_stated_probabilities_come_true_as_often_as_they_say() -> None:
    found = tallies(short("D uniform"), 130, {"real": unchanged})
    assert not missed(found["real"]), shown(found["real"])
    assert "miscalibration" in missed(found["picker"]), shown(found["picker"])


def test_one_variance_for_all_sizes_misses_the_coverage() -> None:
    tally = noisy_small_sizes()["pooled variance"]
    assert "coverage" in missed(tally), shown(tally)


def test_the_test_splits_error_ignored_misses_the_coverage() -> None:
    tally = cheaper_but_worse()["split error ignored"]
    assert "coverage" in missed(tally), shown(tally)


@pytest.mark.parametrize("mutant", ["straight line", "percentile bootstrap"])
def test_a_straight_line_and_a_percentile_bootstrap_miss_the_coverage(mutant: str) -> None:
    tally = decay_to_zero()[mutant]
    assert "coverage" in missed(tally), shown(tally)


def test_picking_the_lowest_validation_loss_claims_what_it_cannot_know() -> None:
    tally = cheaper_but_worse()["picker"]
    assert {"better claimed", "wrong direction"} & missed(tally), shown(tally)
    assert "unlearned arm recommended" in missed(nothing_learned()["picker"])


def test_replicates_on_one_subset_miss_the_coverage() -> None:
    scenario = short("identical arms", noise=Noise(subset=1.0))
    tally = tallies(scenario, 80, {"mutant": unchanged}, change_plan=mutants.shared_subsets)
    assert "coverage" in missed(tally["mutant"]), shown(tally["mutant"])


def test_a_bracket_that_arms_and_replicates_share_has_no_power() -> None:
    scenario = short("ASHA, D = 2 rho", plan=PlanShape(pruner="asha", study_seeds=6))
    real = tallies(scenario, 25, {"real": unchanged})["real"]
    assert not missed(real), shown(real)

    def shared(world: World) -> StudyResults:
        return run_study(world, mutants.one_bracket)

    mutant = tallies(scenario, 25, {"mutant": unchanged}, through=shared)["mutant"]
    assert "power" in missed(mutant), shown(mutant)
