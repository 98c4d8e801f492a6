"""The section `arms` of `study.yaml`: one section per strategy, which are its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from study.basics.section import Section
from study.basics.yaml_source import suggestion
from study.strategies import STRATEGIES, Strategy


class ArmsConfig(Section):
    """A field per strategy, see `arms_model`; None where the study lacks the arm."""

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, data: object) -> object:
        """``arms: [full, lift]`` stands for both arms with their defaults."""
        names = [data] if isinstance(data, str) else data
        if not isinstance(names, list):
            return data
        for index, name in enumerate(names):
            if not isinstance(name, str) or name not in STRATEGIES:
                remedy = suggestion(str(name), STRATEGIES)
                raise PydanticCustomError("arm", f"`{name}` is no arm.", {"remedy": remedy})
            if name in names[:index]:
                rule = f"`{name}` is listed twice."
                raise PydanticCustomError("arm", rule, {"remedy": "Keep one of them."})
        return {name: {} for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        """The study's arms, in the registry's order: the first is what others are compared with."""
        return tuple(arm for arm in STRATEGIES if self.strategy(arm) is not None)

    def strategy(self, arm: str) -> Strategy | None:
        """An arm's options as the study file has them; None where the study lacks the arm."""
        found: Strategy | None = getattr(self, arm, None)
        return found

    def __reduce__(self) -> tuple[Callable[[Mapping[str, Any]], ArmsConfig], tuple[Any, ...]]:
        # The class has no place that it could be imported from.
        return read_arms, ({arm: self.strategy(arm) for arm in self.names},)


def arms_model() -> type[ArmsConfig]:
    """The section's model: a field for every registered strategy."""
    return _arms_model(tuple(STRATEGIES.items()))


@lru_cache
def _arms_model(strategies: tuple[tuple[str, type[Strategy]], ...]) -> type[ArmsConfig]:
    fields: dict[str, Any] = {
        arm: (strategy | None, Field(default=None, description=strategy.summary))
        for arm, strategy in strategies
    }
    return create_model("ArmsConfig", __base__=ArmsConfig, **fields)


def read_arms(data: object) -> ArmsConfig:
    """What a study file's `arms` say.

    Raises:
        pydantic.ValidationError: they are at fault.
    """
    return arms_model().model_validate(data)
