"""A database that is away for a while, or for good."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import OperationalError

from study.basics.errors import StorageLostError
from study.store.connect import connect
from study.store.patient import PatientStorage


class Flaky(RDBStorage):
    """Fails the next `failures` calls of `report`s, before or after they took effect."""

    failures = 0
    after = False

    def set_trial_state_values(self, *args: Any, **kwargs: Any) -> bool:
        return self._flaky(super().set_trial_state_values, *args, **kwargs)

    def set_trial_intermediate_value(self, *args: Any, **kwargs: Any) -> None:
        self._flaky(super().set_trial_intermediate_value, *args, **kwargs)

    def _flaky(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.failures:
            return call(*args, **kwargs)
        self.failures -= 1
        if self.after:
            call(*args, **kwargs)
        raise StorageInternalError("no commit") from OperationalError(
            "INSERT", {}, Exception("away")
        )


class Outage:
    """A flaky database, and a clock that only its pauses move."""

    def __init__(self, folder: Path) -> None:
        self.flaky = Flaky(f"sqlite:///{folder}/study.db")
        self.now, self.said = 0.0, list[str]()
        self.storage: Any = PatientStorage(
            self.flaky, 60.0, self.said.append, self.sleep, lambda: self.now
        )
        self.study = optuna.create_study(storage=self.storage)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def outage(tmp_path: Path) -> Outage:
    return Outage(tmp_path)


def test_it_is_a_storage_that_leaves_nothing_out() -> None:
    public = {n for n in vars(BaseStorage) if not n.startswith("_")}
    assert issubclass(PatientStorage, BaseStorage)
    assert public <= vars(PatientStorage).keys()


@pytest.mark.parametrize("after", [False, True])
def test_an_outage_is_waited_for_and_told_once(outage: Outage, after: bool) -> None:
    trial = outage.study.ask()
    outage.flaky.failures, outage.flaky.after = 4, after
    trial.report(1.0, 1)
    assert len(outage.said) == 1 and "away" in outage.said[0] and 0.5 < outage.now < 60
    outage.flaky.failures = 1
    outage.study.tell(trial, 0.5)
    (stored,) = outage.study.trials
    assert stored.value == 0.5 and stored.intermediate_values == {1: 1.0}


def test_a_database_that_is_gone_is_given_up_and_not_waited_for_again(outage: Outage) -> None:
    trial = outage.study.ask()
    outage.flaky.failures = 10**6
    with pytest.raises(StorageLostError, match="away"):
        trial.report(1.0, 1)
    assert 60 <= outage.now < 90
    given_up = outage.now
    with pytest.raises(StorageLostError, match="away"):
        trial.report(1.0, 1)
    assert outage.now == given_up


def test_mistakes_are_not_repeated(outage: Outage) -> None:
    with pytest.raises(KeyError):
        outage.storage.get_study_id_from_name("nobody")
    trial = outage.study.ask()
    outage.study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        outage.storage.set_trial_intermediate_value(trial._trial_id, 1, 1.0)
    assert outage.now == 0


def test_a_server_that_is_started_again_is_waited_for(
    postgres: Any, postgres_database: str
) -> None:
    said = list[str]()
    storage: Any = PatientStorage(connect(postgres_database), on_wait=said.append)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    postgres.stop()
    back = threading.Timer(2, postgres.ensure_postgres_running)
    back.start()
    trial.report(1.0, 1)
    back.join()
    study.tell(trial, 0.5)
    assert len(said) == 1 and "does not answer" in said[0], said
    (stored,) = study.trials
    assert stored.value == 0.5 and stored.intermediate_values == {1: 1.0}
