"""A study in surroundings that other programs of the same machine made."""

from __future__ import annotations

import pytest

from study import read_study
from study.protocol.records import TrialState
from tests.helpers.real_studies import make_folder, run, write_study

pytestmark = pytest.mark.ray


def test_a_study_runs_whatever_is_around_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_folder(tmp_path_factory, "around")
    folder = folder.rename(folder.with_name("what?a [v2]"))
    for name in ("study", "torch", "datasets", "ray", "multiprocessing", "random"):
        (folder / f"{name}.py").write_text("raise SystemExit('the script of somebody')\n")
    temporary = folder / ("a" * 80)
    temporary.mkdir()
    path = write_study(
        folder,
        data={"train": "m*.jsonl", "prompt": "{question}", "response": "{answer}"},
        arms={"full": {}},
        search={"trials": 1, "replicates": 1,
                "space": {"shared": {"learning_rate": 1e-3, "warmup_ratio": 0.1,
                                     "max_grad_norm": 1.0}}},
        confirm={"seeds": 0},
        resources={"workers_per_trial": 2, "cpus_per_worker": 0.5, "gpus_per_worker": 0},
        storage={"results": "$AROUND/results"},
    )  # fmt: skip
    run(
        path,
        AROUND=str(folder),
        RAY_ADDRESS="",
        # A proxy that takes everything and answers nothing.
        http_proxy="http://127.0.0.1:9",
        HTTPS_PROXY="http://127.0.0.1:9",
        # As below `mpirun -n 1`.
        OMPI_COMM_WORLD_RANK="0",
        OMPI_COMM_WORLD_SIZE="1",
        OMPI_COMM_WORLD_LOCAL_RANK="0",
        HOME="/proc",
        TMPDIR=str(temporary),
    )
    trials = read_study(folder / "results").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE]
