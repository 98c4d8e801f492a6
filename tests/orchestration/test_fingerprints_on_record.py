"""What a study's driver puts on record of its model and data."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import plan_study, run_study
from study.basics.errors import StoreError
from study.basics.fingerprints import files_fingerprint, model_fingerprint
from study.basics.paths import StudyPaths
from study.orchestration.runner import keep_fingerprints
from study.protocol.records import BaseModelRecord
from study.store.study_store import StudyStore
from study.training.data.tokenised import StudyData, use_data
from tests.helpers.data import text_rows, write_jsonl
from tests.helpers.models import tiny_model_folder, write_model
from tests.helpers.results import make_config


def test_model_and_data_are_on_record_and_a_changed_model_is_refused(tmp_path: Path) -> None:
    model, data = write_model(tmp_path / "model"), tmp_path / "train.jsonl"
    data.write_text("{}\n")
    config = make_config(
        model={"path": str(model)},
        data={"train": str(data), "text": "text"},
        storage={"results": str(tmp_path / "results")},
    )
    store = StudyStore.create(config)
    keep_fingerprints(store)
    results = store.results()
    assert results.model_fingerprint == model_fingerprint(str(model))
    assert results.train_fingerprint == files_fingerprint([data])

    # Before anything ran the file's model may be another; after that it may not.
    model.rename(tmp_path / "old")
    write_model(model, seed=1)
    keep_fingerprints(store)
    assert store.results().model_fingerprint != results.model_fingerprint
    store.set_info("base", BaseModelRecord(1.0, 1.0, None).to_dict())
    keep_fingerprints(store)
    model.rename(tmp_path / "newer")
    (tmp_path / "old").rename(model)
    with pytest.raises(StoreError, match="has changed since its first trials"):
        keep_fingerprints(store)


def test_a_study_with_results_keeps_its_data_when_changed_ones_are_refused(
    tmp_path: Path,
) -> None:
    tiny_model_folder(tmp_path)
    train = write_jsonl(tmp_path / "train.jsonl", text_rows(60))
    config = make_config(
        sizes=[24],
        model={"path": str(tmp_path / "tiny-llama-0")},
        data={"train": str(train), "text": "text"},
        resources={"gpus_per_worker": 0},
        storage={"results": str(tmp_path / "results")},
    )
    own = plan_study(config).data
    folder = StudyPaths(config.results_dir).data
    use_data(folder, own.fingerprint)
    store = StudyStore.create(config)
    store.set_info("data", own.to_dict())
    store.set_info("base", BaseModelRecord(1.0, 1.0, None).to_dict())
    write_jsonl(train, text_rows(61))
    with pytest.raises(StoreError, match="data of study 'synthetic' have changed"):
        run_study(config)
    assert StudyData.open(folder).summary == own == StudyData.open(folder, own.fingerprint).summary


def test_what_is_no_longer_here_stays_on_record(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    config = make_config(
        model={"path": "owner/name", "revision": "a" * 40},
        data={"train": str(data), "text": "text"},
        storage={"results": str(tmp_path / "results")},
    )
    store = StudyStore.create(config)
    keep_fingerprints(store)
    assert store.results().model_fingerprint == f"hub:owner/name@{'a' * 40}"
    store.config = config.model_copy(
        update={"model": config.model.model_copy(update={"revision": None})}
    )
    keep_fingerprints(store)
    assert store.results().model_fingerprint == f"hub:owner/name@{'a' * 40}"
