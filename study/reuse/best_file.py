"""A best configuration's file: written by `study best`, read by `study train` and the exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from study.basics.errors import ConfigError, Fault
from study.basics.yaml_source import YamlSource, read_yaml
from study.config.faults import pydantic_faults
from study.config.models import (
    DataConfig,
    ModelConfig,
    PrefixCacheConfig,
    ResourcesConfig,
    TrainingConfig,
    ZeroConfig,
)
from study.strategies import STRATEGIES

FORMAT = 1
"""Of the file; another one is refused."""
_REQUIRED = ("study", "arm", "dataset_size", "hyperparameters", "run", "model", "data", "training")
_SECTIONS = ("study", "hyperparameters", "strategy", "run", "model", "data", "training")
_REMEDY = "`study best STUDY --arm ARM --output best.yaml` writes one."


class Part(BaseModel):
    # What a later version says besides is kept.
    model_config = ConfigDict(frozen=True, extra="allow")


class StudyPart(Part):
    """The study that it comes from; its `results` are a folder or URL."""

    name: str
    seed: int = 0
    arms: list[str] = []
    comparison: str | None = None
    results: str | None = None


class ChosenPart(Part):
    """How it was chosen; `interpolated` names what is no trial's."""

    trials: list[str] = []
    rule: str = ""
    interpolated: list[str] = []
    notes: list[str] = []


class PhasePart(Part):
    name: str
    steps: int


class RunPart(Part):
    """One run at `dataset_size`; without `phases`, they are not on record."""

    steps: int
    epochs: float | None = None
    evaluation_steps: list[int] = []
    best_step: int | None = None
    phases: list[PhasePart] = []


class SeedsPart(Part):
    trial: int = 0
    subset: int | None = None
    order: int | None = None
    confirm: list[int] = []


class ModelPart(ModelConfig):
    """The study's model, and what is known of it."""

    fingerprint: str | None = None
    parameters: int | None = None
    num_blocks: int | None = None
    tied: bool | None = None


class DataPart(DataConfig):
    """The study's data, and what is known of them."""

    fingerprint: str | None = None
    label_names: list[str] = Field(default_factory=list)


class Best(Part):
    """Everything that a rerun needs and that says where the configuration comes from, in the order
    in which it is read. A hyperparameter that is also a setting of `training` or of the strategy
    stands there."""

    format: int = FORMAT
    study: StudyPart
    arm: str
    dataset_size: int
    chosen: ChosenPart = ChosenPart()
    hyperparameters: dict[str, Any]
    strategy: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig
    run: RunPart
    seeds: SeedsPart = SeedsPart()
    scores: dict[str, Any] = Field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    winners: list[dict[str, Any]] = []
    model: ModelPart
    task: str = "causal-lm"
    data: DataPart
    zero: ZeroConfig = ZeroConfig()
    resources: ResourcesConfig = ResourcesConfig()
    prefix_cache: PrefixCacheConfig = PrefixCacheConfig()
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, content: Any) -> Any:
        return {name: part for name, part in content.items() if part is not None}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Of plain values.

        Raises:
            pydantic.ValidationError: they are no best configuration.
        """
        return cls.model_validate_json(json.dumps(content))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, those that `read` was given."""
        return self.model_dump(mode="json", exclude_unset=True)


def settings_of(name: str, section: Any) -> Any:
    """A section of the file without what it says beyond a study's settings, and without
    written-out defaults: some settings may only be written where they have an effect."""
    part = Best.model_fields[name].annotation
    if not isinstance(section, Mapping) or not isinstance(part, type):
        return section
    settings = part.__mro__[1] if issubclass(part, ModelPart | DataPart) else part
    known = settings.model_fields if issubclass(settings, BaseModel) else {}
    beyond = part.model_fields.keys() - known if issubclass(part, BaseModel) else ()
    return {
        key: value
        for key, value in section.items()
        if key not in beyond and (key not in known or value != _default(known[key]))
    }


def _default(field: Any) -> Any:
    value = field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


def read_form(path: Path) -> YamlSource:
    """A file that has what a reader relies on; what its settings say is not looked at.

    Raises:
        ConfigError: it is no best configuration.
    """
    source = read_yaml(path)
    content = source.data
    if not isinstance(content, Mapping):
        rule = "is no best configuration."
        raise ConfigError(source.name, [Fault(source.name, None, content, rule, _REMEDY)])
    known = content.get("format")
    if known != FORMAT:
        rule = f"must be {FORMAT}: a best configuration of this version."
        raise ConfigError(source.name, source.locate([Fault("format", None, known, rule, _REMEDY)]))
    faults = [*source.faults, *_form_faults(content)]
    if faults:
        raise ConfigError(source.name, source.locate(faults))
    return source


def checked(source: YamlSource) -> Best:
    """What a file of good form says, its settings being good.

    Raises:
        ConfigError: the rest is not.
    """
    try:
        return Best.read(source.data)
    except ValidationError as error:
        faults = pydantic_faults(error, source.data, Best).faults
        raise ConfigError(source.name, source.locate(faults)) from None


def _form_faults(content: Mapping[str, Any]) -> list[Fault]:
    wrong = {name: "is required." for name in _REQUIRED if content.get(name) is None}
    wrong |= {
        name: "must be a section of `key: value` lines."
        for name in _SECTIONS
        if not isinstance(content.get(name), Mapping | None)
    }
    faults = [Fault(name, None, None, rule, _REMEDY) for name, rule in wrong.items()]
    if content.get("arm") is not None and str(content["arm"]) not in STRATEGIES:
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
    return faults
