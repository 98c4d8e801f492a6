"""Simulated studies as the store would hold them: the short way, and through the real ledger.

The short way asks the plan for the trials, the pruner for its word, `winner_of` for the winners and
the plan again for their confirm runs. A test holds it against the ledger on an Optuna storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from study.orchestration.ledger.ledger import Ledger
from study.orchestration.ledger.sampling import make_pruner
from study.orchestration.observer import QuietObserver
from study.protocol.plan import Cell
from study.protocol.records import Measurement, TrialOutcome, TrialRecord, TrialSpec, TrialState
from study.protocol.results import StudyResults, winner_of
from study.store.attributes import SPEC
from study.store.facts import SCHEMA_VERSION
from study.store.study_store import StudyStore
from tests.simulation.plans import BLOCKS, MODEL, LaidOut, plans
from tests.simulation.records import PARAMETERS
from tests.simulation.scenarios import Scenario
from tests.simulation.world import World

Study = tuple[World, StudyResults]


def simulate(
    scenario: Scenario,
    studies: range,
    through: Callable[[World], StudyResults] | None = None,
    change_plan: Callable[[LaidOut], LaidOut] = lambda laid_out: laid_out,
) -> Iterator[Study]:
    """Studies of a scenario by number; the same number is always the same study.

    Args:
        through: how its trials are run; None: the short way where there is one, else the ledger
            (a sampler that learns, Optuna's own median pruner).
        change_plan: what a mutant does to every plan.
    """
    if through is None:
        quick = scenario.plan.sampler == "sobol" and scenario.plan.pruner != "median"
        through = run_study if quick else run_through_ledger
    number = sum(ord(letter) * (k + 1) for k, letter in enumerate(scenario.name))
    changed = [change_plan(laid_out) for laid_out in plans(scenario.plan)]
    for study in studies:
        world = World(scenario, changed[study % len(changed)], [number, study])
        yield world, through(world)


def run_study(
    world: World, bracket_of: Callable[[Cell], Hashable] = lambda cell: cell
) -> StudyResults:
    """Every trial of the plan, ended.

    Args:
        bracket_of: cells that it answers alike share the pruner's rungs.
    """
    laid_out = world.laid_out
    pruner = make_pruner(laid_out.plan)
    brackets: dict[Hashable, Bracket] = defaultdict(Bracket)
    trials: list[TrialRecord] = []
    confirm: list[TrialRecord] = []
    for k, specs in enumerate(laid_out.search):
        bracket = brackets[bracket_of(laid_out.cells[k])]
        search = _search(world, specs, pruner, bracket)
        trials += search
        winner = winner_of(search, len(specs))
        if winner is not None:
            runs = laid_out.confirm(k, winner)
            confirm += [_record(spec, *world.confirm_trial(spec)) for spec in runs]
    place = {spec.trial_id: k for k, spec in enumerate(laid_out.plan.search)}
    trials.sort(key=lambda trial: place[trial.spec.trial_id])
    return _results(world, tuple(trials + confirm))


def _search(
    world: World, specs: tuple[TrialSpec, ...], pruner: BasePruner, bracket: Bracket
) -> list[TrialRecord]:
    """A cell's search trials one after the other, as the ledger runs them where any may stop."""
    found = []
    for spec in specs:
        measurements, outcome = world.search_trial(spec)
        kept = measurements
        if not isinstance(pruner, NopPruner):
            kept = bracket.run(spec, measurements, pruner)
        if len(kept) < len(measurements):
            found.append(TrialRecord(spec, TrialState.PRUNED, kept))
        else:
            found.append(_record(spec, measurements, outcome))
    return found


@dataclass
class _Asked:
    """What the halving pruner reads of a trial."""

    number: int
    user_attrs: dict[str, Any]
    intermediate_values: dict[int, float] = field(default_factory=dict)


class Bracket:
    """The trials that a pruner compares, in the place of an Optuna study."""

    def __init__(self) -> None:
        self._trials: list[_Asked] = []

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[_Asked]:
        return self._trials

    def run(
        self, spec: TrialSpec, measurements: tuple[Measurement, ...], pruner: BasePruner
    ) -> tuple[Measurement, ...]:
        """The measurements up to where the pruner stops the trial."""
        attrs = {SPEC: {"evaluation_steps": spec.evaluation_steps}}
        trial = _Asked(len(self._trials), attrs)
        self._trials.append(trial)
        for done, measurement in enumerate(measurements, 1):
            trial.intermediate_values[measurement.step] = measurement.validation_loss
            stop = measurement.step < spec.steps and pruner.prune(self, trial)  # type: ignore[arg-type]
            if stop:
                return measurements[:done]
        return measurements


def _record(
    spec: TrialSpec, measurements: tuple[Measurement, ...], outcome: TrialOutcome
) -> TrialRecord:
    state = TrialState.FAIL if outcome.score is None else TrialState.COMPLETE
    return TrialRecord(spec, state, measurements, outcome, None, 0.0, outcome.device_seconds)


def _results(world: World, trials: tuple[TrialRecord, ...]) -> StudyResults:
    return StudyResults(
        config=world.laid_out.plan.resolved,
        trials=trials,
        base=world.base(),
        probe=MODEL.probe,
        model_parameters=PARAMETERS,
    )


def run_through_ledger(
    world: World, make_store: Callable[..., StudyStore] = StudyStore
) -> StudyResults:
    """The same study, its trials handed out and booked by the ledger on an Optuna storage."""
    plan = world.laid_out.plan
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = InMemoryStorage()
    root = storage.create_new_study([StudyDirection.MINIMIZE], plan.resolved.name)
    storage.set_study_user_attr(root, "schema_version", SCHEMA_VERSION)
    store = make_store(plan.resolved, storage)
    store.set_info("num_blocks", BLOCKS)
    store.set_info("model_parameters", PARAMETERS)
    assert MODEL.probe is not None
    store.set_info("probe", MODEL.probe.to_dict())
    store.set_info("base", world.base().to_dict())
    ledger = Ledger(plan, store, QuietObserver(), concurrent_trials=1)
    while not ledger.is_done:
        spec = ledger.next()
        assert spec is not None
        search = spec.stage == "search"
        measurements, outcome = (world.search_trial if search else world.confirm_trial)(spec)
        if all(ledger.measured(spec.trial_id, m) for m in measurements):
            ledger.ended(spec.trial_id, outcome)
        else:
            ledger.ended(spec.trial_id, None)
    return store.results()


def plainly(trial: TrialRecord) -> TrialRecord:
    """A record without the clock and the words: what two ways of running a trial share."""
    stopped = trial.state is TrialState.PRUNED
    outcome = None if stopped else trial.outcome
    return replace(trial, outcome=outcome, ray_train_job=None, started=None, finished=None)
