"""A final run that nobody made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from study.protocol.records import BaseModelRecord, Stage
from study.reuse import best_configuration
from study.reuse.recipe import FinalRun, Recipe
from tests.helpers.results import make_results, make_trial


def finished(path: str = "models/tiny-llama", **outcome: Any) -> tuple[Recipe, FinalRun]:
    results = make_results(model={"path": path})
    best = best_configuration(results, "lift", 128)
    content = best.file.to_dict()
    config = results.config.model_copy(update={"arms": results.config.arms})
    trial = make_trial("lift", 128, stage=Stage.CONFIRM, score=4.1, test_loss=4.2,
                       retention_loss=3.99, hyperparameters=content["hyperparameters"])  # fmt: skip
    assert trial.outcome is not None and results.data is not None
    recipe = Recipe(best.file, config)
    run = FinalRun(
        folder=Path("/nowhere"),
        config=config,
        spec=trial.spec,
        measurements=trial.measurements,
        outcome=replace(trial.outcome, test_losses=(4.0, 4.4), **outcome),
        base=BaseModelRecord(4.6, 4.63, 3.94),
        data=results.data,
        model_parameters=1_234_944,
        device="GPU",
    )
    return recipe, run
