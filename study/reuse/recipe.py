"""A best configuration as a run of its own: what `study train` reads.

It trains what the chosen trial trained, on as many examples as there are, by the same rule: full's
steps follow from epochs and dataset size, and LIFT keeps its ratio to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from study.basics.errors import ConfigError, Fault
from study.basics.yaml_source import YamlSource, read_yaml
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
from study.strategies import STRATEGIES

FORMAT = 1
_FINDINGS = {
    "model": ("fingerprint", "parameters", "num_blocks", "tied"),
    "data": ("fingerprint", "label_names"),
}
"""What a best configuration says of a section beyond its settings."""
_SECTIONS = ("model", "task", "data", "training", "zero", "resources", "prefix_cache")
_REQUIRED = ("study", "arm", "dataset_size", "hyperparameters", "run", "model", "data", "training")
_STREAM = 20
"""Of the seeds of final runs, beside those of the plan."""


@dataclass(frozen=True)
class Recipe:
    """A chosen configuration.

    Attributes:
        content: the whole file, plain values.
        config: a study of this arm alone at `dataset_size`, with its hyperparameters fixed.
        arm: ``full`` or ``lift``.
        dataset_size: training examples that it was chosen for.
        steps: optimizer steps of a run on so many.
        hyperparameters: of the run.
        num_blocks: of its model; None: not known, and 1 step may be too few for its phases.
    """

    content: dict[str, Any]
    config: StudyConfig
    arm: str
    dataset_size: int
    steps: int
    hyperparameters: dict[str, Any]
    num_blocks: int | None = None

    def steps_at(self, size: int) -> int:
        """Optimizer steps of a run on `size` training examples, one for each phase at least."""
        steps = self.steps
        if size != self.dataset_size:
            rule = full_steps(self.config, size) / full_steps(self.config, self.dataset_size)
            steps = round(self.steps * rule)
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
    source = read_yaml(path)
    content = source.data
    _check_form(source, content)
    study, arm = content["study"], content["arm"]
    hyperparameters = dict(content["hyperparameters"])
    settings = {
        "name": study.get("name"),
        "seed": study.get("seed", 0),
        "dataset_sizes": content["dataset_size"],
        "arms": {arm: content.get("strategy") or {}},
        "search": {"space": {"shared": hyperparameters}, "trials": 1, "replicates": 1},
        "confirm": {"seeds": 1},
        **{name: _settings_of(name, content[name]) for name in _SECTIONS if content.get(name)},
    }
    try:
        config = parse_config(settings, path.absolute().parent, str(path))
    except ConfigError as error:
        raise ConfigError(str(path), source.locate(_renamed(error.faults, arm))) from None
    faults = check_paths(config)
    if faults:
        raise ConfigError(str(path), source.locate(faults))
    size, steps = config.dataset_sizes[0], content["run"]["steps"]
    return Recipe(content, config, arm, size, steps, hyperparameters)


def _check_form(source: YamlSource, content: Any) -> None:
    remedy = "`study best STUDY --arm ARM --output best.yaml` writes one."
    faults = list(source.faults)
    if not isinstance(content, Mapping):
        rule = "is no best configuration."
        raise ConfigError(source.name, [Fault(source.name, None, content, rule, remedy)])
    known = content.get("format")
    if known != FORMAT:
        rule = f"must be {FORMAT}: a best configuration of this version."
        raise ConfigError(source.name, source.locate([Fault("format", None, known, rule, remedy)]))
    for name in _REQUIRED:
        if content.get(name) is None:
            faults.append(Fault(name, None, None, "is required.", remedy))
    for name in ("study", "hyperparameters", "strategy", "run", *_FINDINGS, "training"):
        if not isinstance(content.get(name, {}), Mapping | None):
            faults.append(
                Fault(name, None, None, "must be a section of `key: value` lines.", remedy)
            )
    if content.get("arm") is not None and content["arm"] not in STRATEGIES:
        faults.append(Fault("arm", None, None, f"must be one of {', '.join(STRATEGIES)}.", ""))
    run = content.get("run")
    steps = run.get("steps") if isinstance(run, Mapping) else 1
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        rule = "must be a whole number of at least 1."
        faults.append(Fault("run.steps", None, None, rule, "It is the optimizer steps of one run."))
    chosen = content.get("hyperparameters")
    for name, value in chosen.items() if isinstance(chosen, Mapping) else ():
        if isinstance(value, Mapping | list):
            rule, remedy = "must be a single value.", "A final run searches nothing."
            faults.append(Fault(f"hyperparameters.{name}", None, None, rule, remedy))
    if not isinstance(content.get("dataset_size"), int | None):
        rule, remedy = "must be a whole number.", "Name the one size that it was chosen for."
        faults.append(Fault("dataset_size", None, None, rule, remedy))
    if faults:
        raise ConfigError(source.name, source.locate(faults))


def _settings_of(name: str, section: Any) -> Any:
    """A section without what it says beyond its settings, and without written-out defaults: some
    settings may only be written where they have an effect."""
    if not isinstance(section, Mapping):
        return section
    fields = StudyConfig.model_fields[name].annotation.model_fields  # type: ignore[union-attr]
    plain = {k: v for k, v in section.items() if k not in _FINDINGS.get(name, ())}
    return {k: v for k, v in plain.items() if k not in fields or v != _default(fields[k])}


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


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
