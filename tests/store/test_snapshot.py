"""A study read without Optuna is the one that Optuna's storage gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from study.basics.errors import StoreError
from study.basics.paths import StudyPaths
from study.config.load import StudyConfig
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from study.store.snapshot import facts_at, read_snapshot
from study.store.study_store import StudyStore
from tests.helpers.results import DRAWN_FROM, make_config
from tests.helpers.stores import finished_study, write_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    folder = tmp_path_factory.mktemp("finished")
    results = finished_study(config_in(folder))
    write_store(results)
    return results


def config_in(folder: Path, **changes: object) -> StudyConfig:
    storage = {"results": str(folder), **changes}
    return make_config(
        sizes=(64,), replicates=1, trials=2, confirm_seeds=1, overrides=DRAWN_FROM,
        storage=storage,
    )  # fmt: skip


def snapshot(url: str) -> StudyResults:
    return read_snapshot(url, "synthetic", facts_at(url)["synthetic"]).results()


def test_it_equals_what_the_store_gives(finished: StudyResults) -> None:
    url = finished.config.database_url
    found = snapshot(url)
    assert found == StudyStore.open(url).results()
    assert [t.spec.trial_id for t in found.trials] == [t.spec.trial_id for t in finished.trials]
    assert [t.score for t in found.trials] == [t.score for t in finished.trials]
    assert found.model_fingerprint == finished.model_fingerprint
    assert found.num_blocks == 4


def test_it_equals_the_store_on_a_server(tmp_path: Path, postgres_database: str) -> None:
    config = config_in(tmp_path, database=postgres_database)
    results = finished_study(config)
    write_store(results)
    assert snapshot(postgres_database) == StudyStore.open(postgres_database).results()


def test_an_unfinished_study_has_its_waiting_trials(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    results = finished_study(config)
    part = StudyResults(
        config=config, trials=results.trials[:3], base=results.base, data=results.data,
        probe=results.probe, num_blocks=4,
    )  # fmt: skip
    write_store(part)
    found = snapshot(config.database_url)
    assert found == StudyStore.open(config.database_url).results()
    states = [trial.state for trial in found.trials]
    assert states.count(TrialState.COMPLETE) == 3
    assert states.count(TrialState.WAITING) == len(states) - 3 > 0


def test_a_study_whose_name_begins_like_another_is_told_apart(tmp_path: Path) -> None:
    for name in ("synthetic", "synthetic2", "synthet_c"):
        config = config_in(tmp_path).model_copy(update={"name": name})
        StudyStore.create(config).set_info("num_blocks", len(name))
    url = config_in(tmp_path).database_url
    found = {name: read_snapshot(url, name, facts).info("num_blocks")
             for name, facts in facts_at(url).items()}  # fmt: skip
    assert found == {"synthetic": 9, "synthetic2": 10, "synthet_c": 9}


def test_a_damaged_database_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="Cannot open the study storage"):
        facts_at(f"sqlite:///{path}")
    missing = tmp_path / "none.db"
    with pytest.raises(StoreError, match="Cannot open the study storage"):
        facts_at(f"sqlite:///{missing}")
    assert not missing.exists()


def test_no_optuna_is_needed_to_read_a_finished_study(finished: StudyResults) -> None:
    code = (
        "from study.store.snapshot import facts_at, read_snapshot\n"
        "import sys\n"
        "from pathlib import Path\n"
        f"file = Path({str(StudyPaths(finished.config.results_dir).database)!r})\n"
        "results = read_snapshot(file, 'synthetic', facts_at(file)['synthetic']).results()\n"
        "slow = ('optuna', 'sqlalchemy', 'torch', 'ray', 'scipy.stats')\n"
        "print(len(results.trials), *(m for m in slow if m in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(len(finished.trials))]
