"""The section `arms` of `study.yaml`: the strategies and their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from study.basics.errors import ConfigError
from study.basics.yaml_source import suggestion
from study.config.section import PositiveInt, Section
from study.config.space.parameters import MAX_SWEEPS
from study.config.space.read import ARMS
from study.strategies.lift_options import read_always_active, read_groups


class FullConfig(Section):
    """Full-parameter fine-tuning has nothing of its own to set."""


class LiftConfig(Section):
    group_size: PositiveInt | None = None
    """Transformer blocks per group; null: a quarter of them, rounded up."""
    groups: list[PositiveInt] | None = Field(default=None, min_length=1)
    """Instead of `group_size`: blocks of each group from the top, e.g. [2, 4, 6]; they add up to
    the model's number of blocks."""
    order: Literal["top-down", "bottom-up", "random"] = "top-down"
    """Which group trains first; the others are controls. random: another order in every sweep."""
    sweeps: Annotated[int, Field(ge=1, le=MAX_SWEEPS)] = 1
    """Times the whole pass is repeated."""
    cumulative: bool = False
    """Groups that trained earlier in a sweep keep training (gradual unfreezing)."""
    always_active: list[str] = Field(default=[])
    """What trains in every phase: `head`, `final_norm`, `last_K_blocks` (e.g. last_2_blocks).
    With `head`, a model whose head is tied to its embeddings trains these in every phase too: each
    step then goes back through all blocks, and no hidden states can be cached."""
    phase_steps: Literal["even", "proportional"] = "even"
    """How steps are shared among phases; proportional: to the parameters that each trains."""
    group_lr_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning-rate factor per group below the top one."""
    rewarmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of each phase, from the second on, that warms up again."""

    @field_validator("groups", mode="before")
    @classmethod
    def _groups_from_text(cls, data: object) -> object:
        return _listed(read_groups, data) if isinstance(data, str) else data

    @field_validator("always_active", mode="before")
    @classmethod
    def _always_active_from_text(cls, data: object) -> object:
        words = isinstance(data, list) and all(isinstance(entry, str) for entry in data)
        return _listed(read_always_active, data) if words or isinstance(data, str) else data


class ArmsConfig(Section):
    full: FullConfig | None = None
    """Every weight trains in every step."""
    lift: LiftConfig | None = None
    """Groups of transformer blocks train one after another."""

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, data: object) -> object:
        """``arms: [full, lift]`` stands for both arms with their defaults."""
        names = [data] if isinstance(data, str) else data
        if not isinstance(names, list):
            return data
        for index, name in enumerate(names):
            if not isinstance(name, str) or name not in ARMS:
                remedy = suggestion(str(name), ARMS)
                raise PydanticCustomError("arm", f"`{name}` is no arm.", {"remedy": remedy})
            if name in names[:index]:
                rule = f"`{name}` is listed twice."
                raise PydanticCustomError("arm", rule, {"remedy": "Keep one of them."})
        return {name: {} for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n in ("full", "lift") if getattr(self, n) is not None)


def _listed(read: Callable[[Any], tuple[Any, ...]], data: object) -> list[Any]:
    """What a reader of `study.strategies.lift_options` makes of `data`, its fault as pydantic's."""
    try:
        return list(read(data))
    except ConfigError as error:
        (fault,) = error.faults
        raise PydanticCustomError("lift", fault.rule, {"remedy": fault.remedy}) from None
