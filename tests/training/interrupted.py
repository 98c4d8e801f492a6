"""Trials on real process groups that are killed or paused at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.config.load import StudyConfig
from study.protocol.records import Measurement, Stage, TrialSpec
from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder

STEPS = 6
EVALUATIONS = (1, 3, 4, 6)  # LIFT trains two phases of 3 steps: inside and at the end of each
NOT_COMPARED = {
    "prefix_cache",  # what it did depends on what earlier trials left in it
    "seconds",
    "device_seconds",
    "checkpoint_device_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "switch_seconds",
    "train_seconds",
}


class Killed(Exception):
    """Stands for whatever ends the processes of a trial."""


def study_of(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": "checkpoints",
        "model": {"path": str(folder / "tiny-llama-0"), "dropout": 0.0},
        "data": {
            "train": str(folder / "mine.jsonl"),
            "prompt": "{question}",
            "response": "{answer}",
            "retention_size": 6,
        },
        "dataset_sizes": [24],
        "arms": {"full": {}, "lift": {"group_size": 2}},
        "comparison": "tokens",
        "training": {
            "steps": STEPS,
            "global_batch_size": 8,
            "micro_batch_size_per_worker": 2,
            "sequence_length": 48,
            "weight_decay": 0.01,  # two parameter groups
            "checkpoint_share": 1.0,
        },
        "storage": {"results": str(folder / "results")},
        # Tiny parameters would all stay whole, and stage 3 would be tested in name only.
        "zero": {"overrides": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}},
    }
    for section, values in sections.items():
        config[section] = config.get(section, {}) | values
    return config


def spec_of(arm: str = "lift", stage: Stage = Stage.SEARCH, rate: float = 5e-3) -> TrialSpec:
    return TrialSpec(
        trial_id=f"{arm}-n24-r0-s0",
        arm=arm,
        size=24,
        replicate=0,
        stage=stage,
        index=0,
        seed=3,
        subset_seed=4,
        order_seed=5,
        steps=STEPS,
        evaluation_steps=EVALUATIONS,
        hyperparameters={"learning_rate": rate, "warmup_ratio": 0.2, "max_grad_norm": 0.5},
    )


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items() if k not in NOT_COMPARED}
    return [comparable(v) for v in value] if isinstance(value, list | tuple) else value


class Runs:
    """Runs one trial on one rank, as often as asked."""

    def __init__(
        self, folder: Path, config: dict[str, Any], spec: TrialSpec, rank: int, world_size: int
    ) -> None:
        import torch

        from study.training.data.tokenised import StudyData
        from study.training.placement import Placement

        self.config, self.spec = StudyConfig.model_validate(config), spec
        self.data = StudyData.open(folder / "data")
        self.placement = Placement(torch.device("cpu"), rank, world_size)

    def run(
        self, checkpoints: Path | None, kill_at: int = 0, pause_after: int | None = None
    ) -> dict[str, Any]:
        """What the trial reported, and its outcome and final weights unless it was killed when it
        reported step `kill_at`, or paused by one rank after step `pause_after`."""
        from study.training.engine.checksum import checksum
        from study.training.loop import Signal, _Trial
        from tests.helpers.whole_weights import full_state

        reported: list[dict[str, Any]] = []

        def report(measurement: Measurement) -> None:
            reported.append(measurement.to_dict())
            if measurement.step == kill_at:
                raise Killed

        def signal() -> Signal:
            wanted = self.placement.rank == 1 and trial.progress.step == pause_after
            return Signal.PAUSE if wanted else Signal.GO_ON

        trial = _Trial(
            self.config, self.spec, self.data, self.placement, report, checkpoints, signal
        )
        try:
            outcome = trial.run().to_dict()
        except Killed:
            hooks = sum(len(p._backward_hooks or ()) for p in trial.model.parameters())
            return {"reported": reported, "hooks": hooks}
        weights = {name: checksum(tensor) for name, tensor in full_state(trial.model).items()}
        return {"reported": reported, "outcome": outcome, "weights": weights}


def make_folder(folders: pytest.TempPathFactory) -> Path:
    """A model, and its data prepared."""
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import use_data
    from study.training.model.load import load_tokenizer

    folder = folders.mktemp("checkpoints")
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(80))
    config = StudyConfig.model_validate(study_of(folder))
    data = prepare_data(config, folder / "data", load_tokenizer(config.model))
    use_data(folder / "data", data.fingerprint)
    return folder
