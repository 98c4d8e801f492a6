"""Reading a study's trials back: everything on record as one `StudyResults`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from study.config.load import StudyConfig
from study.protocol.plan import Cell, StudyPlan, cell_of, with_space
from study.protocol.records import Stage, TrialRecord, TrialState, WarmStart
from study.protocol.results import (
    StudyResults,
    published_config,
    spent_device_seconds_of,
    winner_of,
    with_paused,
)
from study.store.attributes import SPEC, VOID, to_record
from study.store.facts import StudyFacts
from study.store.optuna_internals import id_of_study


class StudyReader(StudyFacts):
    """What a store says of a study; writes no trials and needs no Optuna."""

    @property
    def has_results(self) -> bool:
        """Something was measured that another study file could not stand for."""
        prefix = f"{self.config.name}/"
        return self.base is not None or any(
            s.study_name.startswith(prefix) for s in self._storage.get_all_studies()
        )

    @property
    def fixed_warm_start(self) -> WarmStart | None:
        """What earlier studies said: on record with the first trial, whatever they say later; None
        while they may still be asked."""
        return self.warm_start if self.has_results else None

    def _name(self, cell: Cell, stage: Stage) -> str:
        suffix = "/confirm" if stage is Stage.CONFIRM else ""
        return f"{self.config.name}/{cell.arm}/n{cell.size}/r{cell.replicate}{suffix}"

    def records(
        self, cell: Cell, stage: Stage, of: Mapping[str, Any] | None = None
    ) -> dict[int, TrialRecord]:
        """A cell's stored trials of a stage by plan index, without void ones.

        Args:
            of: only those with these hyperparameters: confirm trials of a winner that a longer
                search has replaced do not count any more.
        """
        try:  # reading makes no studies
            study_id = self._storage.get_study_id_from_name(self._name(cell, stage))
        except KeyError:
            return {}
        found: dict[int, TrialRecord] = {}
        for frozen in self._storage.get_all_trials(study_id, deepcopy=False):
            if SPEC in frozen.user_attrs and VOID not in frozen.user_attrs:
                record = to_record(frozen)
                if of is None or record.spec.hyperparameters == of:
                    found[record.spec.index] = record
        return found

    def all_records(self) -> list[TrialRecord]:
        """Every trial that ever started, those that do not count any more too."""
        prefix = f"{self.config.name}/"
        return [
            to_record(frozen)
            for study in self._storage.get_all_studies()
            if study.study_name.startswith(prefix)
            for frozen in self._storage.get_all_trials(id_of_study(study), deepcopy=False)
            if SPEC in frozen.user_attrs
        ]

    def results(self) -> StudyResults:
        """Everything on record, waiting trials included."""
        warm_start = self.warm_start
        return StudyResults(
            config=StudyConfig.from_dict(published_config(with_space(self.config, warm_start))),
            trials=with_paused(self._trials(), self.running_since),
            base=self.base,
            data=self.data,
            probe=self.probe,
            model_parameters=self.info("model_parameters"),
            seconds=self.info("seconds", 0.0),
            device_seconds=sum(map(spent_device_seconds_of, self.all_records())),
            notes=tuple(self.info("notes", ())),
            warm_start=warm_start,
            model_fingerprint=self.info("model_fingerprint"),
            train_fingerprint=self.info("train_fingerprint"),
            num_blocks=self.info("num_blocks"),
            tied=self.info("tied", False),
        )

    def _trials(self) -> tuple[TrialRecord, ...]:
        model = self.model
        if model is None:
            return ()
        config = self.config
        cells = [
            Cell(arm, size, replicate)
            for replicate, size, arm in itertools.product(
                range(config.search.replicates), config.dataset_sizes, config.arms.names
            )
        ]
        stored = {cell: self.records(cell, Stage.SEARCH) for cell in cells}
        indices = range(config.search.trials)
        if all(index in found for found in stored.values() for index in indices):
            # The order of the plan, without drawing a design that nobody waits for.
            plan = StudyPlan(config, model, ())
            arms = len(config.arms.names)
            search = [
                stored[cell][index]
                for first in range(0, len(cells), arms)
                for index in indices
                for cell in cells[first : first + arms]
            ]
        else:
            found_plan = self.plan()
            assert found_plan is not None  # the model is known
            plan = found_plan
            search = [
                stored[cell_of(spec)].get(spec.index, TrialRecord(spec, TrialState.WAITING))
                for spec in plan.search
            ]
        confirm = [
            record
            for cell in cells
            for record in self._confirm_records(plan, cell, list(stored[cell].values()))
        ]
        return (*search, *confirm)

    def _confirm_records(
        self, plan: StudyPlan, cell: Cell, search: list[TrialRecord]
    ) -> list[TrialRecord]:
        winner = winner_of(search, self.config.search.trials)
        if winner is None or not self.config.confirm.seeds:
            return []
        chosen = winner.spec.hyperparameters
        stored = self.records(cell, Stage.CONFIRM, chosen)
        return [
            stored.get(spec.index, TrialRecord(spec, TrialState.WAITING))
            for spec in plan.confirm(cell, chosen)
        ]
