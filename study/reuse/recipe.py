"""A best configuration as a run of its own: what `study train` reads.

It trains what the chosen trial trained, on as many examples as there are, by the same rule: full's
steps follow from epochs and dataset size, and LIFT keeps its ratio to them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.basics.errors import ConfigError, Fault
from study.config.load import StudyConfig, check_paths, parse_config
from study.protocol.plan import derive_seed, evaluation_steps
from study.protocol.records import (
    BaseModelRecord,
    DataSummary,
    Measurement,
    Stage,
    TrialOutcome,
    TrialSpec,
)
from study.protocol.steps import full_steps, least_steps
from study.reuse.best_file import Best, checked, read_form, settings_of

_SECTIONS = ("model", "task", "data", "training", "zero", "resources", "prefix_cache")
_STREAM = 20
"""Of the seeds of final runs, beside those of the plan."""


@dataclass(frozen=True)
class Recipe:
    """A chosen configuration.

    Attributes:
        best: the whole file.
        config: a study of this arm alone at `dataset_size`, with its hyperparameters fixed.
        num_blocks: of its model; None: not known, and 1 step may be too few for its phases.
    """

    best: Best
    config: StudyConfig
    num_blocks: int | None = None

    @property
    def arm(self) -> str:
        return self.best.arm

    @property
    def dataset_size(self) -> int:
        """Training examples that it was chosen for."""
        return self.best.dataset_size

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Of the run."""
        return self.best.hyperparameters

    def steps_at(self, size: int) -> int:
        """Optimizer steps of a run on `size` training examples, one for each phase at least."""
        steps = self.best.run.steps
        if size != self.dataset_size:
            rule = full_steps(self.config, size) / full_steps(self.config, self.dataset_size)
            steps = round(steps * rule)
        if self.num_blocks is None:
            return max(1, steps)
        return max(steps, least_steps(self.config, self.arm, self.hyperparameters, self.num_blocks))

    def config_at(self, size: int, results: str) -> StudyConfig:
        """The configuration of a run on `size` training examples with its files in `results`, an
        absolute path or a URL."""
        training = self.config.training.model_copy(
            update={"epochs": None, "steps": self.steps_at(size)}
        )
        storage = self.config.storage.model_copy(update={"results": results})
        return self.config.model_copy(
            update={"dataset_sizes": [size], "training": training, "storage": storage}
        )

    def spec_at(self, size: int, seed: int) -> TrialSpec:
        """The run itself. It keeps its best weights and never stops early, as confirm trials do.

        Args:
            seed: initialisation, order and dropout follow from it.
        """
        steps = self.steps_at(size)
        return TrialSpec(
            trial_id=f"{self.arm}-final",
            arm=self.arm,
            size=size,
            replicate=0,
            stage=Stage.CONFIRM,
            index=0,
            seed=derive_seed(seed, _STREAM, 0),
            subset_seed=derive_seed(seed, _STREAM, 1),
            order_seed=derive_seed(seed, _STREAM, 2),
            steps=steps,
            evaluation_steps=evaluation_steps(steps, self.config.training.evaluations),
            hyperparameters=self.hyperparameters,
        )


@dataclass(frozen=True)
class FinalRun:
    """A final run that has finished.

    Attributes:
        folder: the model on this machine: weights, configuration, tokenizer.
        config: what it ran with.
        spec, measurements, outcome: as of a confirm trial.
        base: the untouched base model's losses on the same splits.
        data: what preparing the data found.
        model_parameters: number of scalars.
        device: ``GPU``, its type, or ``CPU``.
    """

    folder: Path
    config: StudyConfig
    spec: TrialSpec
    measurements: tuple[Measurement, ...]
    outcome: TrialOutcome
    base: BaseModelRecord
    data: DataSummary
    model_parameters: int
    device: str


def read_recipe(path: Path) -> Recipe:
    """What `study best` wrote, perhaps edited since.

    Raises:
        ConfigError: it is no best configuration, or everything that is wrong in it and with the
            model and data files that it names.
    """
    source = read_form(path)
    content = source.data
    study, arm = content["study"], content["arm"]
    settings = {
        "name": study.get("name"),
        "seed": study.get("seed", 0),
        "dataset_sizes": content["dataset_size"],
        "arms": {arm: content.get("strategy") or {}},
        "search": {
            "space": {"shared": dict(content["hyperparameters"])},
            "trials": 1,
            "replicates": 1,
        },
        "confirm": {"seeds": 1},
        **{name: settings_of(name, content[name]) for name in _SECTIONS if content.get(name)},
    }
    try:
        config = parse_config(settings, path.absolute().parent, str(path))
    except ConfigError as error:
        raise ConfigError(str(path), source.locate(_renamed(error.faults, arm))) from None
    faults = check_paths(config)
    if faults:
        raise ConfigError(str(path), source.locate(faults))
    return Recipe(checked(source), config)


def _renamed(faults: tuple[Fault, ...], arm: str) -> list[Fault]:
    """Faults of the study that a best configuration stands for, by its own keys."""
    places = {
        f"arms.{arm}": "strategy",
        "arms": "arm",
        "search.space.shared": "hyperparameters",
        "search.space": "hyperparameters",
        "dataset_sizes": "dataset_size",
        "name": "study.name",
        "seed": "study.seed",
    }
    renamed = []
    for fault in faults:
        for old, new in places.items():
            if f"{fault.path}.".startswith(f"{old}."):
                fault = dataclasses.replace(fault, path=f"{new}{fault.path[len(old) :]}")
                break
        renamed.append(fault)
    return renamed
