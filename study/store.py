"""The study's ledger on an Optuna storage; the only reader and writer of results.

One Optuna study per (arm, size, replicate), named ``<study>/<arm>/n<size>/r<replicate>``, and one
named ``.../confirm`` beside it. Objective values and intermediate values are validation losses;
everything else is a user attribute. A study called just ``<study>`` holds what belongs to the
whole: its file, data summary, base model's losses, probe. So Optuna's own tools and dashboard
open a store as it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as OptunaState

from study.config import StudyConfig
from study.errors import StoreError
from study.plan import Cell, ModelFacts, StudyPlan, cell_of, plan_study
from study.records import (
    BaseModelRecord,
    DataSummary,
    Measurement,
    Stage,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from study.results import StudyResults, winner_of
from study.storage import connect, make_parent, sqlite_path

SCHEMA_VERSION = 1

_SPEC = "spec"
_OUTCOME = "outcome"
_JOB = "ray_train_job"
_STARTED = "started"
_FINISHED = "finished"
_MEASUREMENT = "measurement/"


class StudyStore:
    """Reads and writes one study. Not thread-safe; one writer at a time."""

    def __init__(self, config: StudyConfig, storage: optuna.storages.BaseStorage) -> None:
        self.config = config
        self._storage = storage
        self._studies: dict[str, optuna.Study] = {}
        self._trial_ids: dict[str, int] = {}

    @classmethod
    def create(cls, config: StudyConfig) -> StudyStore:
        """Open the study's store, making it if there is none.

        Raises:
            StoreError: it holds another study file's results, or an unknown schema version.
        """
        make_parent(config.database_url)
        storage = connect(config.database_url)
        if config.name not in {s.study_name for s in storage.get_all_studies()}:
            study_id = storage.create_new_study([StudyDirection.MINIMIZE], config.name)
            storage.set_study_user_attr(study_id, "schema_version", SCHEMA_VERSION)
            storage.set_study_user_attr(study_id, "config", config.to_dict())
        store = cls(_read_config(storage, config.name, config.database_url), storage)
        store._refuse_other_config(config)
        store.config = config
        return store

    @classmethod
    def open(cls, database_url: str, name: str | None = None) -> StudyStore:
        """Open an existing store for reading.

        Args:
            database_url: Optuna storage URL.
            name: the study; may be left out when the storage holds one only.

        Raises:
            StoreError: there is no such storage or study.
        """
        path = sqlite_path(database_url)
        if path is not None and not path.is_file():
            raise StoreError(
                f"No study at {path}. Start it with `study run`, or name another folder."
            )
        storage = connect(database_url)
        names = sorted(
            s.study_name
            for s in storage.get_all_studies()
            if "schema_version" in storage.get_study_user_attrs(s._study_id)
        )
        if name is None and len(names) == 1:
            name = names[0]
        if name is None or name not in names:
            known = ", ".join(names) or "none"
            raise StoreError(f"No study {name!r} in {database_url}. Studies there: {known}.")
        return cls(_read_config(storage, name, database_url), storage)

    def _refuse_other_config(self, config: StudyConfig) -> None:
        """A continued study must be the same study; only what no result depends on may differ.
        A file that was mended before anything ran is simply the new file."""
        old, new = _identity(self.config), _identity(config)
        if old == new or not self.has_results:
            self.set_info("config", config.to_dict())
            return
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
        raise StoreError(
            f"The results of study {config.name!r} were made with another study file. Changed: "
            f"{', '.join(changed)}. Give the new study another name or storage.results, or "
            "remove the old one with `study clean --all`."
        )

    @property
    def has_results(self) -> bool:
        """Something was measured that another study file could not stand for."""
        prefix = f"{self.config.name}/"
        return self.base is not None or any(
            s.study_name.startswith(prefix) for s in self._storage.get_all_studies()
        )

    # Facts about the whole study

    @cached_property
    def _root(self) -> int:
        return self._storage.get_study_id_from_name(self.config.name)

    def set_info(self, key: str, value: Any) -> None:
        """Keep a JSON value that belongs to the whole study."""
        self._storage.set_study_user_attr(self._root, key, value)

    def info(self, key: str, default: Any = None) -> Any:
        return self._storage.get_study_user_attrs(self._root).get(key, default)

    @property
    def base(self) -> BaseModelRecord | None:
        found = self.info("base")
        return BaseModelRecord.from_dict(found) if found else None

    @property
    def data(self) -> DataSummary | None:
        found = self.info("data")
        return DataSummary.from_dict(found) if found else None

    def plan(self) -> StudyPlan | None:
        """The plan that the store's facts give, None before the model was looked at."""
        blocks = self.info("num_blocks")
        if blocks is None:
            return None
        return plan_study(self.config, ModelFacts(blocks, self.info("cost_ratio")))

    # Trials

    def _name(self, cell: Cell, stage: Stage) -> str:
        suffix = "/confirm" if stage is Stage.CONFIRM else ""
        return f"{self.config.name}/{cell.arm}/n{cell.size}/r{cell.replicate}{suffix}"

    def _study(self, cell: Cell, stage: Stage) -> optuna.Study:
        """The cell's Optuna study, made if there is none."""
        name = self._name(cell, stage)
        if name not in self._studies:
            self._studies[name] = optuna.create_study(
                study_name=name, storage=self._storage, direction="minimize", load_if_exists=True
            )
        return self._studies[name]

    def begin(
        self,
        plan: StudyPlan,
        spec: TrialSpec,
        distributions: Mapping[str, BaseDistribution],
        sampler: BaseSampler,
    ) -> TrialSpec:
        """Ask for a trial's hyperparameters and mark it RUNNING.

        A trial that a killed driver left RUNNING with all its parameters is taken up again under
        its own number; one with only some of them is told FAIL with a `void` mark.

        Args:
            distributions: of the arm's hyperparameters, fixed ones too.
            sampler: asked for them.

        Returns:
            The spec with hyperparameters and steps.
        """
        study = self._study(cell_of(spec), spec.stage)
        trial = self._stale(study, spec, distributions)
        if trial is None:
            study.sampler = sampler
            trial = study.ask(dict(distributions))
        resolved = plan.resolve(spec, trial.params)
        trial.set_user_attr(_SPEC, resolved.to_dict())
        trial.set_user_attr(_STARTED, time.time())
        self._trial_ids[spec.trial_id] = trial._trial_id
        return resolved

    def _stale(
        self, study: optuna.Study, spec: TrialSpec, distributions: Mapping[str, BaseDistribution]
    ) -> Trial | None:
        for frozen in study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            stored = frozen.user_attrs.get(_SPEC)
            if frozen.params.keys() == distributions.keys() and (
                stored is None or stored["trial_id"] == spec.trial_id
            ):
                return Trial(study, frozen._trial_id)
            if stored is None:
                self._storage.set_trial_user_attr(frozen._trial_id, "void", True)
                study.tell(frozen.number, state=OptunaState.FAIL)
        return None

    def set_job(self, trial_id: str, ray_train_job: str) -> None:
        self._storage.set_trial_user_attr(self._trial_ids[trial_id], _JOB, ray_train_job)

    def report(self, spec: TrialSpec, measurement: Measurement) -> None:
        """Keep an evaluation. Reporting the same step again (a trial run again after a crash)
        replaces the measurement and leaves Optuna's intermediate value as it was."""
        trial = Trial(self._study(cell_of(spec), spec.stage), self._trial_ids[spec.trial_id])
        key = f"{_MEASUREMENT}{measurement.step}"
        trial.set_user_attr(key, measurement.to_dict())
        frozen = self._storage.get_trial(trial._trial_id)
        if measurement.step not in frozen.intermediate_values:
            trial.report(measurement.validation_loss, measurement.step)

    def should_prune(self, spec: TrialSpec, pruner: BasePruner) -> bool:
        """Ask `pruner` about a search trial, among the finished ones of its replicate."""
        study = self._study(cell_of(spec), spec.stage)
        frozen = self._storage.get_trial(self._trial_ids[spec.trial_id])
        return pruner.prune(study, frozen)

    def finish(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        """Tell how a trial ended: COMPLETE with its score, PRUNED, or FAIL with its reason."""
        trial_id = self._trial_ids.pop(spec.trial_id)
        self._storage.set_trial_user_attr(trial_id, _OUTCOME, outcome.to_dict())
        self._storage.set_trial_user_attr(trial_id, _FINISHED, time.time())
        study = self._study(cell_of(spec), spec.stage)
        complete = state is TrialState.COMPLETE
        study.tell(
            self._storage.get_trial(trial_id).number,
            values=outcome.score if complete else None,
            state=OptunaState[state.value],
        )

    def records(self, cell: Cell, stage: Stage) -> dict[int, TrialRecord]:
        """A cell's stored trials of a stage by plan index, without void ones."""
        try:  # reading makes no studies
            study_id = self._storage.get_study_id_from_name(self._name(cell, stage))
        except KeyError:
            return {}
        found: dict[int, TrialRecord] = {}
        for frozen in self._storage.get_all_trials(study_id, deepcopy=False):
            if _SPEC in frozen.user_attrs and "void" not in frozen.user_attrs:
                record = _to_record(frozen)
                found[record.spec.index] = record
        return found

    def record(self, spec: TrialSpec) -> TrialRecord | None:
        """One trial as stored, None if it never started."""
        return self.records(cell_of(spec), spec.stage).get(spec.index)

    def results(self) -> StudyResults:
        """Everything on record, waiting trials included."""
        plan = self.plan()
        trials: list[TrialRecord] = []
        if plan is not None:
            stored = {cell: self.records(cell, Stage.SEARCH) for cell in plan.cells}
            for spec in plan.search:
                waiting = TrialRecord(spec, TrialState.WAITING)
                trials.append(stored[cell_of(spec)].get(spec.index, waiting))
            for cell in plan.cells:
                trials.extend(self._confirm_records(plan, cell, list(stored[cell].values())))
        return StudyResults(
            config=self.config,
            trials=tuple(trials),
            base=self.base,
            data=self.data,
            cost_ratio=self.info("cost_ratio"),
            model_parameters=self.info("model_parameters"),
            seconds=self.info("seconds", 0.0),
            notes=tuple(self.info("notes", ())),
        )

    def _confirm_records(
        self, plan: StudyPlan, cell: Cell, search: list[TrialRecord]
    ) -> list[TrialRecord]:
        winner = winner_of(search, self.config.search.trials)
        if winner is None or not self.config.confirm.seeds:
            return []
        stored = self.records(cell, Stage.CONFIRM)
        return [
            stored.get(spec.index, TrialRecord(spec, TrialState.WAITING))
            for spec in plan.confirm(cell, winner.spec.hyperparameters)
        ]


def _to_record(frozen: FrozenTrial) -> TrialRecord:
    attrs = frozen.user_attrs
    measurements = [
        Measurement.from_dict(v) for k, v in attrs.items() if k.startswith(_MEASUREMENT)
    ]
    return TrialRecord(
        spec=TrialSpec.from_dict(attrs[_SPEC]),
        state=TrialState(frozen.state.name),
        measurements=tuple(sorted(measurements, key=lambda m: m.step)),
        outcome=TrialOutcome.from_dict(attrs[_OUTCOME]) if _OUTCOME in attrs else None,
        ray_train_job=attrs.get(_JOB),
        started=attrs.get(_STARTED),
        finished=attrs.get(_FINISHED),
    )


def _identity(config: StudyConfig) -> dict[str, str]:
    """What results depend on, by section: all but where things are kept and how many run."""
    data = config.to_dict()
    for section in ("storage", "decision"):
        data.pop(section, None)
    data["resources"].pop("concurrent_trials", None)
    return {k: json.dumps(v, sort_keys=True) for k, v in data.items()}


def _read_config(storage: optuna.storages.BaseStorage, name: str, url: str) -> StudyConfig:
    attrs = storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    version = attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"The store {url} has schema version {version}; this program reads "
            f"{SCHEMA_VERSION}. Use the program version that wrote it, or start a new study."
        )
    return StudyConfig.from_dict(attrs["config"])
