"""What checks found that later ones need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from study.config.load import StudyConfig
from study.orchestration.prepare import Prepared
from study.protocol.records import DataSummary
from study.store.study_store import StudyStore

if TYPE_CHECKING:
    from study.orchestration.preflight.footprint import Footprint
    from study.orchestration.preflight.resources import Room
    from study.strategies.base import Phase
    from study.training.model.shape import ModelShape


@dataclass
class Examination:
    """A study under examination. What has no default is there once its check stands.

    Attributes:
        config: the study file.
        store: its results so far; None: there are none.
        data: made by `data`.
        shape: by `model`.
        prepared: by `plan`.
        room: by `resources`.
        phases: of each arm's trials, by `plan`.
        footprints: of each arm's heaviest phase, by `memory`.
    """

    config: StudyConfig
    store: StudyStore | None = None
    data: DataSummary = field(init=False)
    shape: ModelShape = field(init=False)
    prepared: Prepared = field(init=False)
    room: Room = field(init=False)
    phases: dict[str, list[Phase]] = field(default_factory=dict)
    footprints: dict[str, Footprint] = field(default_factory=dict)
