"""What a database holds, as whoever looks for earlier studies reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.basics.errors import StoreError
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from study.reuse.past_studies import find_studies
from study.store.connect import studies_at
from study.store.study_store import StudyStore
from tests.helpers.results import DRAWN_FROM, make_config
from tests.helpers.stores import finished_study, write_store


def test_a_study_whose_name_begins_like_another_is_told_apart(tmp_path: Path) -> None:
    config = make_config(storage={"results": str(tmp_path)})
    for name in ("synthetic", "synthetic2", "synthet_c"):
        store = StudyStore.create(config.model_copy(update={"name": name}))
        store.set_info("num_blocks", len(name))
    _, found = studies_at(config.database_url)
    blocks = {name: facts["num_blocks"] for name, facts in found.items()}
    assert blocks == {"synthetic": 9, "synthetic2": 10, "synthet_c": 9}


def test_an_unfinished_study_has_its_waiting_trials(tmp_path: Path) -> None:
    config = make_config(
        sizes=(64,), replicates=1, trials=2, confirm_seeds=1, overrides=DRAWN_FROM,
        storage={"results": str(tmp_path)},
    )  # fmt: skip
    whole = finished_study(config)
    write_store(
        StudyResults(
            config=config, trials=whole.trials[:3], base=whole.base, data=whole.data,
            probe=whole.probe, num_blocks=4,
        )
    )  # fmt: skip
    ((past,), trouble) = find_studies([str(tmp_path)])
    found = past.results()
    assert not trouble and found.trials == StudyStore.open(config.database_url).results().trials
    states = [trial.state for trial in found.trials]
    assert states.count(TrialState.COMPLETE) == 3
    assert states.count(TrialState.WAITING) == len(states) - 3 > 0


def test_what_is_no_database_is_one_message_and_a_missing_one_is_not_made(tmp_path: Path) -> None:
    damaged, missing = tmp_path / "study.db", tmp_path / "none.db"
    damaged.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="Cannot open the study storage"):
        studies_at(f"sqlite:///{damaged}")
    with pytest.raises(StoreError, match=f"No study at {missing}"):
        studies_at(f"sqlite:///{missing}")
    assert not missing.exists()
