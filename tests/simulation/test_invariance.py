"""What a study's reading must not depend on, and the simulator's short way against the ledger."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import study
from study.protocol.records import TrialRecord, TrialSpec, TrialState
from study.protocol.results import StudyResults
from tests.simulation.landscape import Noise
from tests.simulation.reading import close, read, swapped
from tests.simulation.scenarios import SCENARIOS, PlanShape, Scenario
from tests.simulation.studies import plainly, run_study, run_through_ledger, simulate
from tests.simulation.truth import lowest_losses

TEMPLATES = Path(study.__file__).parent / "cli" / "examples" / "templates"
SIZES = (250, 1000, 1414, 4000)
SMALL = PlanShape(replicates=3, trials=4, study_seeds=6)
KINDS = ("crossover, 4x noise at the smallest", "cheaper, not worse", "D = 2 rho", "divergence")


def studies(name: str, number: int = 2) -> list[StudyResults]:
    scenario = SCENARIOS[name]
    scenario = replace(scenario, plan=replace(SMALL, basis=scenario.plan.basis))
    return [results for _, results in simulate(scenario, range(number))]


def renamed(results: StudyResults) -> StudyResults:
    """The same study with the arms' names exchanged."""
    other = {"full": "lift", "lift": "full"}

    def exchange(trial: TrialRecord) -> TrialRecord:
        arm = other[trial.spec.arm]
        trial_id = trial.spec.trial_id.replace(trial.spec.arm, arm, 1)
        return replace(trial, spec=replace(trial.spec, arm=arm, trial_id=trial_id))

    return replace(results, trials=tuple(map(exchange, results.trials)))


@pytest.mark.parametrize("name", KINDS)
def test_exchanging_the_arms_names_exchanges_everything_that_is_said(name: str) -> None:
    for results in studies(name):
        there, back = read(results, SIZES), read(renamed(results), SIZES)
        assert close(swapped(there), back), (there, back)
        assert not close(there, back)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("arms", [("full", "lift"), ("lift",)])
def test_stopped_trials_change_no_estimate(name: str, arms: tuple[str, ...]) -> None:
    def stopped(trial: TrialRecord) -> TrialRecord:
        """Lower than any other while it ran, and a place further in the plan."""
        spec = replace(trial.spec, trial_id=f"{trial.spec.trial_id}9", index=90)
        lower = tuple(
            replace(m, validation_loss=m.validation_loss - 1.0) for m in trial.measurements[:3]
        )
        return TrialRecord(spec, TrialState.PRUNED, lower)

    for results in studies(name):
        more = [stopped(t) for t in results.trials if is_first(t.spec) and t.spec.arm in arms]
        assert len(more) == 15 * len(arms)
        there = read(results, SIZES)
        back = read(replace(results, trials=(*results.trials, *more)), SIZES)
        for numbers in ("differences", "low", "high", "lift_better_by_rho", "full_better_by_rho"):
            assert getattr(there, numbers) == getattr(back, numbers)
        if len(arms) == 2:
            assert there == back


def is_first(spec: TrialSpec) -> bool:
    return spec.stage == "search" and spec.index == 0


@pytest.mark.parametrize("name", KINDS)
def test_the_order_of_the_records_changes_nothing(name: str) -> None:
    for results in studies(name):
        shuffled = list(results.trials)
        random.Random(0).shuffle(shuffled)
        there = read(results, SIZES)
        assert close(there, read(replace(results, trials=tuple(shuffled)), SIZES))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: replace(s, plan=replace(s.plan, pruner="asha", trials=8)),
        lambda s: replace(SCENARIOS["divergence"], plan=SMALL),
        lambda s: replace(s, noise=Noise(smallest=4.0, split=0.25, outliers="spikes")),
    ],
    ids=["usual", "asha", "divergence", "spikes"],
)
def test_the_short_way_and_the_ledger_give_the_same_records(
    change: Callable[[Scenario], Scenario],
) -> None:
    scenario = change(replace(SCENARIOS["crossover"], plan=SMALL))
    plan = replace(scenario.plan, sizes=(250, 1000), replicates=2)
    scenario = replace(scenario, plan=plan)
    for world, quick in simulate(scenario, range(2), run_study):
        slow = run_through_ledger(world)
        assert [plainly(t) for t in quick.trials] == [plainly(t) for t in slow.trials]
        assert quick.base == slow.base and quick.config == slow.config
        if plan.pruner == "asha":
            assert any(t.state is TrialState.PRUNED for t in quick.trials)


def test_a_sampler_that_learns_goes_through_the_ledger() -> None:
    scenario = SCENARIOS["TPE and median pruner, D = 2 rho"]
    plan = replace(scenario.plan, sizes=(250, 1000), replicates=2)
    ((_, results),) = simulate(replace(scenario, plan=plan), range(1))
    states = [trial.state for trial in results.trials]
    assert states.count(TrialState.PRUNED) > 0 and TrialState.WAITING not in states


def test_the_same_number_is_the_same_study_and_another_is_another() -> None:
    scenario = replace(SCENARIOS["crossover"], plan=SMALL)
    ((_, first),) = simulate(scenario, range(3, 4))
    ((_, again),) = simulate(scenario, range(3, 4))
    ((_, other),) = simulate(scenario, range(4, 5))
    assert first.trials == again.trials
    assert first.trials != other.trials


def test_tuned_arms_differ_by_what_the_scenario_says() -> None:
    """The mean over studies of what the tuned arms really lost, against D(n)."""
    scenario = replace(SCENARIOS["crossover"], plan=SMALL, noise=Noise(0.2, 0.2, 0.2, 0.5, 0.0))
    for size in (250, 4000):
        found = []
        for world, results in simulate(scenario, range(40)):
            runs = [t for t in results.trials if t.outcome and t.spec.size == size]
            means = {
                arm: [t.outcome.test_loss for t in runs if t.spec.arm == arm and t.outcome
                      and t.outcome.test_loss is not None]
                for arm in ("full", "lift")
            }  # fmt: skip
            gap = sum(means["full"]) / len(means["full"]) - sum(means["lift"]) / len(means["lift"])
            found.append(gap - world.difference(size))
        mean = sum(found) / len(found)
        error = (sum((f - mean) ** 2 for f in found) / len(found) / (len(found) - 1)) ** 0.5
        assert abs(mean) < 3 * error < 0.002
        lowest = lowest_losses(scenario, size)
        assert lowest["full"] - lowest["lift"] != pytest.approx(world.difference(size), abs=1e-4)


@pytest.mark.parametrize("task", ["causal-lm", "classification"])
def test_scenarios_take_the_plan_that_study_init_proposes(task: str) -> None:
    file = yaml.safe_load((TEMPLATES / f"{task}.yaml").read_text())
    usual = PlanShape()
    assert tuple(file["dataset_sizes"]) == usual.sizes
    assert file["search"]["replicates"] == usual.replicates
    assert file["search"]["trials"] == usual.trials
    assert file["confirm"]["seeds"] == usual.seeds
