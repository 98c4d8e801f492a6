"""Facts about a whole study: user attributes of the Optuna study that bears its name."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from study.basics.errors import StorageLostError, StoreError
from study.basics.urls import without_password, without_passwords
from study.config.load import StorageConfig, StudyConfig
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import BaseModelRecord, DataSummary, StepCosts, WarmStart
from study.protocol.results import fact
from study.store.heartbeat import beating, is_alive, sign_of_life

if TYPE_CHECKING:  # half a second to import, and reading needs none of it
    import optuna

SCHEMA_VERSION = 2
_DRIVER, _STOP = "driver", "stop/"


def read_config(
    storage: optuna.storages.BaseStorage, name: str, url: str, place: StorageConfig | None = None
) -> StudyConfig:
    """The study file that a study was last run with.

    Args:
        url: of the database.
        place: where its files are; None: nobody but the record says, and that is not believed.

    Raises:
        StoreError: the store has a schema version that this program does not know.
    """
    attrs = storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    version = attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"The store {without_password(url)} has schema version {version}; this program reads "
            f"{SCHEMA_VERSION}. Use the program version that wrote it, or start a new study."
        )
    return StudyConfig.from_dict(attrs["config"]).at(place or StorageConfig(database=url))


class StudyFacts:
    """What is known of a study beside its trials."""

    def __init__(self, config: StudyConfig, storage: optuna.storages.BaseStorage) -> None:
        self.config = config
        self._storage = storage
        self._opened, self._seconds_before = time.time(), 0.0

    @cached_property
    def _root(self) -> int:
        return self._storage.get_study_id_from_name(self.config.name)

    def set_info(self, key: str, value: Any) -> None:
        """Keep a JSON value that belongs to the whole study."""
        self._storage.set_study_user_attr(self._root, key, without_passwords(value))

    def info(self, key: str, default: Any = None) -> Any:
        return self.all_info().get(key, default)

    def all_info(self) -> dict[str, Any]:
        """Everything of the whole study, by key."""
        return dict(self._storage.get_study_user_attrs(self._root))

    @property
    def base(self) -> BaseModelRecord | None:
        return fact(self.all_info(), "base")

    @property
    def data(self) -> DataSummary | None:
        return fact(self.all_info(), "data")

    @property
    def probe(self) -> StepCosts | None:
        return fact(self.all_info(), "probe")

    @property
    def model(self) -> ModelFacts | None:
        """None before the model was looked at."""
        blocks = self.info("num_blocks")
        if blocks is None:
            return None
        cached, tied = self.info("prefix_cache", False), self.info("tied", False)
        return ModelFacts(blocks, self.probe, cached, tied)

    def plan(self) -> StudyPlan | None:
        """The plan that the store's facts give, None before the model was looked at."""
        model = self.model
        return None if model is None else plan_trials(self.config, model, self.warm_start)

    @property
    def warm_start(self) -> WarmStart | None:
        return fact(self.all_info(), "warm_start")

    @property
    def tracking_mark(self) -> str:
        """Tells this study's runs in a tracker from those of another one of its name."""
        mark = self.info("tracking_mark")
        if mark is None:
            mark = uuid.uuid4().hex[:8]
            self.set_info("tracking_mark", mark)
        return str(mark)

    # The driver. One that is killed cannot say so, nor how long it ran, so it says all along that
    # it runs.

    @property
    def running_since(self) -> float:
        """When the driver that runs the study now began, seconds since the epoch; infinite where
        none does."""
        sign = self.info(_DRIVER)
        return float(sign.get("since", math.inf)) if is_alive(sign) else math.inf

    def begin_session(self) -> None:
        """From now on this process runs the study."""
        self._opened, self._seconds_before = time.time(), self.info("seconds", 0.0)
        self.set_info(_DRIVER, self._sign)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Says that this process runs the study until the block ends."""
        storage = getattr(self._storage, "inner", self._storage)

        def beat() -> None:
            with suppress(Exception):  # whoever needs the database waits for it, and tells
                storage.set_study_user_attr(self._root, _DRIVER, self._sign)

        try:
            with beating(beat):
                yield
        finally:
            with suppress(StorageLostError):
                self.keep_wall_seconds(time.time())
                self.set_info(_DRIVER, None)

    @property
    def _sign(self) -> dict[str, Any]:
        return sign_of_life() | {"since": self._opened}

    def wall_seconds(self, now: float) -> float:
        """Seconds spent running the study, over all its sessions, at `now` (since the epoch)."""
        return self._seconds_before + now - self._opened

    def keep_wall_seconds(self, now: float) -> None:
        """Put them on record."""
        self.set_info("seconds", self.wall_seconds(now))

    # Trials to stop. A key each, so that a request and the driver's own writing cannot collide.

    def request_stop(self, trial_id: str) -> None:
        """Ask the driver to stop a trial at its next evaluation, or to skip it."""
        self.set_info(f"{_STOP}{trial_id}", True)

    def withdraw_stop(self, trial_id: str) -> None:
        """The request was met, or came too late."""
        self.set_info(f"{_STOP}{trial_id}", False)

    def stop_requests(self) -> frozenset[str]:
        """Ids of the trials that somebody wants stopped."""
        attrs = self._storage.get_study_user_attrs(self._root)
        asked = (key for key, wanted in attrs.items() if key.startswith(_STOP) and wanted)
        return frozenset(key.removeprefix(_STOP) for key in asked)
