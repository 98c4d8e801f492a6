"""A study as the pages' commands expect one: files, a study file, and results on record."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from study.basics.fingerprints import model_fingerprint
from study.cli.files import write_study_file
from study.config.load import load_config
from study.config.sources import find_source
from tests.helpers.data import write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.stores import finished_study, write_store

ROWS = 6000
WAITING = "lift-n2000-r0-c0"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `study init`'s file, the model and the examples that it names, and a study of
    fewer trials than it proposes, one of which still waits."""
    folder = tmp_path_factory.mktemp("project")
    tiny_model_folder(folder).rename(folder / "base-model")
    rows = [
        {"prompt": f"What is {i} plus {i}?", "response": f"It is {2 * i}."} for i in range(ROWS)
    ]
    write_jsonl(folder / "train.jsonl", rows)
    path = folder / "study.yaml"
    write_study_file(path, "causal-lm", force=False)
    study = yaml.safe_load(path.read_text())
    study["dataset_sizes"] = [250, 500, 1000, 2000]
    study["search"] |= {"trials": 2, "replicates": 1}
    study["confirm"] = {"seeds": 1}
    study["training"] |= {"sequence_length": 64}
    path.write_text(yaml.safe_dump(study))
    config = load_config(path)
    model = model_fingerprint(config.model.path, None)
    assert model is not None
    train = find_source("data.train", config.data.train, ()).fingerprint()
    results = finished_study(config, model=model, train=train)
    begun = tuple(trial for trial in results.trials if trial.spec.trial_id != WAITING)
    write_store(dataclasses.replace(results, trials=begun))
    return folder
