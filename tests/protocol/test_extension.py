"""A study with results may grow and nothing else; a refusal says what, why, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from study.basics.errors import StoreError
from study.config.load import StudyConfig
from study.protocol.extension import changes, extension, without_job_folder
from tests.helpers.results import make_config


def config(**changes: Any) -> StudyConfig:
    """Sizes 64 and 128, 4 trials, 2 replicates, 1 confirm seed."""
    sections = {
        "dataset_sizes": [64, 128],
        "search": {"trials": 4, "replicates": 2},
        "confirm": {"seeds": 1},
        "training": {"steps": 8},
    }
    return make_config(**(sections | changes))


def refusal(new: StudyConfig) -> str:
    with pytest.raises(StoreError) as caught:
        extension(config(), new)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"search": {"trials": 6, "replicates": 2}}, "search.trials 4 -> 6"),
        ({"search": {"trials": 4, "replicates": 3}}, "search.replicates 2 -> 3"),
        ({"confirm": {"seeds": 2}}, "confirm.seeds 1 -> 2"),
        ({"dataset_sizes": [32, 64, 128, 512]}, "dataset_sizes + 32, 512"),
        (
            {"dataset_sizes": [64, 128, 512], "search": {"trials": 8, "replicates": 3}},
            "dataset_sizes + 512, search.trials 4 -> 8, search.replicates 2 -> 3",
        ),
    ],
)
def test_growth_is_allowed_and_told(change: dict[str, Any], told: str) -> None:
    assert extension(config(), config(**change)) == f"Extending the study: {told}"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"decision": {"rho": 0.05}},
        {"budget": {"device_hours": 2.0}},
        {"storage": {"results": "elsewhere"}},
        {"resources": {"concurrent_trials": 3}},
        {"prefix_cache": {"max_gib": 3.0, "folder": "/scratch", "min_free_gib": 1.0}},
        {"training": {"steps": 8, "checkpoint_share": 0.1}},
    ],
)
def test_what_no_result_depends_on_may_change_and_is_no_extension(change: dict[str, Any]) -> None:
    assert extension(config(), config(**change)) is None


@pytest.mark.parametrize(
    ("change", "told", "why"),
    [
        ({"training": {"steps": 12}}, "training.steps: 8 -> 12", "trained with the old value"),
        ({"search": {"trials": 3, "replicates": 2}}, "search.trials: 4 -> 3", "would be lost"),
        ({"search": {"trials": 4, "replicates": 1}}, "search.replicates: 2 -> 1", "only grow"),
        ({"confirm": {"seeds": 0}}, "confirm.seeds: 1 -> 0", "would be lost"),
        ({"dataset_sizes": [64]}, "dataset_sizes: [64, 128] -> [64]", "at 128 examples"),
        ({"dataset_sizes": [64, 256]}, "[64, 128] -> [64, 256]", "at 128 examples"),
        ({"seed": 3}, "seed: 0 -> 3", "every subset"),
        (
            {"search": {"trials": 4, "replicates": 2, "sampler": "tpe"}},
            'search.sampler: "sobol" -> "tpe"', "chosen the old way",
        ),
        (
            {"search": {"trials": 4, "replicates": 2, "overrides": {"learning_rate": 1e-4}}},
            "search.overrides.learning_rate: not set -> 0.0001", "chosen the old way",
        ),
        ({"arms": {"full": {}}}, "arms.lift: ", "the arms"),
        ({"comparison": "tokens"}, 'comparison: "device_seconds" -> "tokens"', "old basis"),
        ({"zero": {"stage": 3}}, "zero.stage: 2 -> 3", "their memory measured"),
        ({"prefix_cache": {"enabled": False}}, 'prefix_cache.enabled: "auto" -> false', "LIFT"),
    ],
)  # fmt: skip
def test_any_other_change_is_refused_by_its_key_with_values_and_reason(
    change: dict[str, Any], told: str, why: str
) -> None:
    message = refusal(config(**change))
    (line,) = [line for line in message.splitlines() if line.startswith("  - ")]
    assert told in line and why in line
    assert "Put the old values back" in message and "another name" in message


def test_growth_beside_a_refused_change_is_refused_and_all_refused_changes_are_told() -> None:
    search = {"trials": 6, "replicates": 1, "pruner": "asha"}
    message = refusal(config(search=search, training={"steps": 8, "evaluations": 2}))
    assert "search.replicates: 2 -> 1" in message
    assert 'search.pruner: "none" -> "asha"' in message
    assert "training.evaluations: 5 -> 2" in message
    assert "search.trials" not in message.split("A study with results can grow")[0]


def test_changes_stand_in_the_order_of_the_file() -> None:
    found = changes(config(), config(training={"steps": 9}, seed=1, task="causal-lm"))
    assert [change.path for change in found] == ["seed", "training.steps"]


def test_a_submitted_study_is_the_same_in_every_job() -> None:
    """Its files lie in another folder each time, below the same hash."""
    here, there = ({"path": f"/tmp/ray/{job}/study-inputs/ab12/model"} for job in ("a", "b"))
    assert without_job_folder(here) == without_job_folder(there) != {}
    assert without_job_folder({"path": "/models/x"}) == {"path": "/models/x"}
