"""What every section of `study.yaml` has in common, a strategy's options among them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    # Strict, or `trials: true` would run one trial. The docstrings below the fields become
    # their descriptions, which messages show.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
