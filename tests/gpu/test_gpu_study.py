"""A study on real GPUs: NCCL, bf16, device memory. Run with `pytest -m gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from study import open_study
from study.protocol.records import TrialState
from study.protocol.results import StudyResults
from study.training.data.tokenised import StudyData
from tests.helpers.plain import plain_loss
from tests.helpers.real_studies import make_folder, run, write_study

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=[0, 2, 3], ids=lambda stage: f"ZeRO-{stage}")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> StudyResults:
    """Both arms, bf16 chosen by itself, one worker per GPU."""
    folder: Path = make_folder(tmp_path_factory, f"gpu{request.param}")
    options: dict[str, Any] = {
        "zero": {"stage": request.param},
        "resources": {"workers_per_trial": 1, "gpus_per_worker": "auto"},
    }
    path = write_study(folder, name="gpu", **options)
    run(path)
    return open_study(path).results()


def test_every_trial_completes(results: StudyResults) -> None:
    assert {r.state for r in results.trials} == {TrialState.COMPLETE}


def test_trials_run_in_bf16_and_pass_the_audit(results: StudyResults) -> None:
    for record in results.trials:
        assert record.outcome is not None
        assert record.outcome.deepspeed_config["bf16"]["enabled"] is True


def test_training_learns(results: StudyResults) -> None:
    assert results.base is not None
    for record in results.trials:
        assert record.score is not None and record.score < results.base.validation_loss


def test_memory_is_device_memory(results: StudyResults) -> None:
    # The resident set of a process that has imported torch is larger than a tiny model's GiB.
    for record in results.trials:
        assert 0 < record.measurements[-1].peak_memory_bytes < 2**30


@pytest.mark.parametrize("arm", ["full", "lift"])
def test_the_final_run_leaves_the_model_that_it_scored(results: StudyResults, arm: str) -> None:
    """ZeRO-3's shards are put together; plain transformers gives the reported test loss, but for
    bf16's rounding."""
    folder, place = results.config.results_dir.parent, f"model-{arm}"
    for words in (
        ["best", "study.yaml", "--arm", arm, "--output", f"{arm}.yaml"],
        ["train", f"{arm}.yaml", "--output", place, "--dataset-size", "24"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "study", *words], cwd=folder, capture_output=True, text=True,
            env=os.environ | {"COLUMNS": "80", "HF_HUB_OFFLINE": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((folder / place / "study_training.json").read_text())
    assert record["outcome"]["deepspeed_config"]["bf16"]["enabled"] is True
    test = StudyData.open(results.config.results_dir / "data").test
    assert plain_loss(folder / place, test) == pytest.approx(
        record["outcome"]["test_loss"], abs=3e-2
    )
