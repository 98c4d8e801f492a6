"""The study's ledger on an Optuna storage; the only reader and writer of results.

One Optuna study per (arm, size, replicate), named ``<study>/<arm>/n<size>/r<replicate>``, and one
named ``.../confirm`` beside it. Objective values and intermediate values are validation losses;
everything else is a user attribute. A study called just ``<study>`` holds what belongs to the
whole: its file, data summary, base model's losses, probe; its one trial is the base model (of a
classifier the class prior), which every value in the others should be below. So Optuna's own tools
and dashboard open a store as it is.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import Trial
from optuna.trial import TrialState as OptunaState

from study.basics.database_url import sqlite_path
from study.basics.errors import StoreError
from study.basics.urls import without_password
from study.config.load import StorageConfig, StudyConfig
from study.protocol.extension import extension
from study.protocol.plan import Cell, StudyPlan, cell_of
from study.protocol.records import (
    BaseModelRecord,
    Measurement,
    Stage,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from study.protocol.results import published_config
from study.store.attributes import (
    FINISHED,
    JOB,
    MEASUREMENT,
    OUTCOME,
    SPEC,
    STARTED,
    VOID,
    to_record,
)
from study.store.connect import connect, make_parent, stored_study_names
from study.store.facts import SCHEMA_VERSION, read_config
from study.store.notes import (
    base_columns,
    cell_columns,
    cell_note,
    columns_at_end,
    columns_at_start,
    describe,
    study_note,
)
from study.store.optuna_internals import id_of_study, id_of_trial
from study.store.patient import PatientStorage, Waiting
from study.store.reader import StudyReader


class StudyStore(StudyReader):
    """Reads and writes one study. Not thread-safe; one writer at a time.

    Attributes:
        config: the study file.
        extension: how this file lets a study with results grow, None if it does not.
    """

    def __init__(self, config: StudyConfig, storage: optuna.storages.BaseStorage) -> None:
        super().__init__(config, storage)
        self.extension: str | None = None
        self._studies: dict[str, optuna.Study] = {}
        self._trial_ids: dict[str, int] = {}

    @classmethod
    def create(cls, config: StudyConfig, on_wait: Waiting | None = None) -> StudyStore:
        """Open the study's store for its driver, making it if there is none.

        Args:
            on_wait: told when the database is out of reach and waited for.

        Raises:
            StoreError: it holds results of a study file that this one is no extension of, or has
                an unknown schema version.
        """
        make_parent(config.database_url)
        storage = PatientStorage(connect(config.database_url))
        storage.on_wait = on_wait or storage.on_wait
        if config.name not in {s.study_name for s in storage.get_all_studies()}:
            study_id = storage.create_new_study([StudyDirection.MINIMIZE], config.name)
        else:
            study_id = storage.get_study_id_from_name(config.name)
        if _is_bare(storage, study_id):
            storage.set_study_user_attr(study_id, "config", published_config(config))
            # Last, for it says that the rest is there.
            storage.set_study_user_attr(study_id, "schema_version", SCHEMA_VERSION)
        store = cls(read_config(storage, config.name, config.database_url), storage)
        store.extension = store.extension_to(config)
        store.set_info("config", config.to_dict())
        store.config = config
        describe(storage, store._root, without_password(study_note(config)))
        store.begin_session()
        return store

    @classmethod
    def open(
        cls, database_url: str, name: str | None = None, place: StorageConfig | None = None
    ) -> StudyStore:
        """Open an existing store for reading.

        Args:
            database_url: Optuna storage URL.
            name: the study; may be left out when the storage holds one only.
            place: where its files are; None: a database alone does not tell.

        Raises:
            StoreError: there is no such storage or study.
        """
        path = sqlite_path(database_url)
        if path is not None and not path.is_file():
            raise StoreError(
                f"No study at {path}. Start it with `study run`, or name another folder."
            )
        names: list[str] = []
        # Connecting makes tables, and a study that is about to begin makes them too.
        if stored_study_names(database_url):
            storage = connect(database_url)
            names = sorted(
                s.study_name
                for s in storage.get_all_studies()
                if "schema_version" in storage.get_study_user_attrs(id_of_study(s))
            )
            if name is None and len(names) == 1:
                name = names[0]
            if name in names:
                return cls(read_config(storage, name, database_url, place), storage)
        known = ", ".join(names) or "none"
        raise StoreError(
            f"No study {name!r} in {without_password(database_url)}. Studies there: {known}."
        )

    def keep_base(self, base: BaseModelRecord) -> None:
        """Put the base model's losses on record, also as the trial of the study of the whole."""
        loss = base.validation_loss
        if math.isfinite(loss) and self._storage.get_n_trials(self._root) == 0:
            study = optuna.load_study(study_name=self.config.name, storage=self._storage)
            columns = base_columns(self.config.task, base)
            study.add_trial(optuna.create_trial(value=loss, user_attrs=columns))
        # Last: once it is there, nothing measures it again.
        self.set_info("base", base.to_dict())

    def extension_to(self, config: StudyConfig) -> str | None:
        """How the study grows with this study file; None if it does not. A file that was mended
        before anything ran is simply the new file.

        Raises:
            StoreError: results on record would be invalid or lost.
        """
        return extension(self.config, config) if self.has_results else None

    # Trials

    def _study(self, cell: Cell, stage: Stage) -> optuna.Study:
        """The cell's Optuna study, made if there is none."""
        name = self._name(cell, stage)
        if name not in self._studies:
            study = self._studies[name] = optuna.create_study(
                study_name=name, storage=self._storage, direction="minimize", load_if_exists=True
            )
            note = cell_note(self.config, cell, stage)
            describe(self._storage, id_of_study(study), note, cell_columns(cell))
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
        its own number; one with only some of them, or with those of a former winner, is told FAIL
        with a `void` mark.

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
        trial.set_user_attr(SPEC, resolved.to_dict())
        trial.set_user_attr(STARTED, time.time())
        for name, value in columns_at_start(resolved).items():
            trial.set_user_attr(name, value)
        self._trial_ids[spec.trial_id] = id_of_trial(trial)
        return resolved

    def _stale(
        self, study: optuna.Study, spec: TrialSpec, distributions: Mapping[str, BaseDistribution]
    ) -> Trial | None:
        for frozen in study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            stored = frozen.user_attrs.get(SPEC)
            if stored is not None and stored["trial_id"] != spec.trial_id:
                continue
            # A former winner's confirm trial has the same id and other hyperparameters.
            same_point = not spec.hyperparameters or frozen.params == spec.hyperparameters
            if same_point and frozen.params.keys() == distributions.keys():
                return Trial(study, id_of_trial(frozen))
            self._storage.set_trial_user_attr(id_of_trial(frozen), VOID, True)
            study.tell(frozen.number, state=OptunaState.FAIL)
        return None

    def set_job(self, trial_id: str, ray_train_job: str) -> None:
        self._storage.set_trial_user_attr(self._trial_ids[trial_id], JOB, ray_train_job)

    def report(self, spec: TrialSpec, measurement: Measurement) -> None:
        """Keep an evaluation. One that is kept already stays as it is."""
        trial = Trial(self._study(cell_of(spec), spec.stage), self._trial_ids[spec.trial_id])
        key = f"{MEASUREMENT}{measurement.step}"
        frozen = self._storage.get_trial(id_of_trial(trial))
        if key in frozen.user_attrs:
            return
        # First what the pruner reads: after a crash in between, the rest is reported again.
        if measurement.step not in frozen.intermediate_values:
            trial.report(measurement.validation_loss, measurement.step)
        trial.set_user_attr(key, measurement.to_dict())

    def should_prune(self, spec: TrialSpec, pruner: BasePruner) -> bool:
        """Ask `pruner` about a search trial, among the finished ones of its replicate."""
        study = self._study(cell_of(spec), spec.stage)
        frozen = self._storage.get_trial(self._trial_ids[spec.trial_id])
        return pruner.prune(study, frozen)

    def finish(self, spec: TrialSpec, state: TrialState, outcome: TrialOutcome) -> None:
        """Tell how a trial ended: COMPLETE with its score, PRUNED, or FAIL with its reason."""
        trial_id = self._trial_ids[spec.trial_id]
        outcome = dataclasses.replace(outcome, reason=without_password(outcome.reason))
        for name, value in columns_at_end(outcome).items():
            self._storage.set_trial_user_attr(trial_id, name, value)
        self._storage.set_trial_user_attr(trial_id, OUTCOME, outcome.to_dict())
        self._storage.set_trial_user_attr(trial_id, FINISHED, time.time())
        study = self._study(cell_of(spec), spec.stage)
        complete = state is TrialState.COMPLETE
        study.tell(
            self._storage.get_trial(trial_id).number,
            values=outcome.score if complete else None,
            state=OptunaState[state.value],
        )

    def record(self, spec: TrialSpec) -> TrialRecord | None:
        """One trial as stored, None if it never started."""
        of = spec.hyperparameters if spec.stage is Stage.CONFIRM else None
        begun = self._trial_ids.get(spec.trial_id)
        if begun is not None:  # without reading all the others
            record = to_record(self._storage.get_trial(begun))
            if of is None or record.spec.hyperparameters == of:
                return record
        return self.records(cell_of(spec), spec.stage, of).get(spec.index)


def _is_bare(storage: optuna.storages.BaseStorage, study_id: int) -> bool:
    """Whether it was made just now, or by a driver that was killed at its first steps."""
    keys = storage.get_study_user_attrs(study_id).keys()
    return keys <= {"config"} and not storage.get_n_trials(study_id)
