"""What a strategy sees of a model, and what it answers with. No torch: names and counts only."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from study.errors import ModelError, UserError


@dataclass(frozen=True)
class BlockLayout:
    """A model by the names of its parameters; every one is in exactly one part.

    Attributes:
        numel: scalars per parameter, in the model's own order; tied parameters appear once.
        embeddings: what feeds the blocks (token and position embeddings, relative positions).
        blocks: parameters of each transformer block, from the lowest to the highest.
        top: what reads the highest block's output: final norm, untied head, pooler.
        new_head: the subset of `top` that was initialised at random (a classification head).
        tied: the output matrix is the input embedding; it belongs to `embeddings`.

    Raises:
        ModelError: a parameter is missing from the parts, or in two of them.
    """

    numel: Mapping[str, int]
    embeddings: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    top: tuple[str, ...]
    new_head: tuple[str, ...] = ()
    tied: bool = False

    def __post_init__(self) -> None:
        parts = [*self.embeddings, *self.top, *(n for block in self.blocks for n in block)]
        if sorted(parts) != sorted(self.numel):
            odd = {n for n in parts if parts.count(n) > 1} | set(self.numel) ^ set(parts)
            raise ModelError(
                "every parameter must lie in exactly one of embeddings, blocks and top. "
                f"These do not: {', '.join(sorted(odd)[:5])}"
            )
        stray = set(self.new_head) - set(self.top)
        if stray:
            raise ModelError(
                "the model's folder has no weights for parameters below its head: "
                f"{', '.join(sorted(stray)[:5])}. Use a complete checkpoint."
            )

    @property
    def parameters(self) -> tuple[str, ...]:
        """All names, in the model's order."""
        return tuple(self.numel)

    def ordered(self, names: Collection[str]) -> tuple[str, ...]:
        """`names` in the model's order: the same set always builds the same optimizer."""
        wanted = set(names)
        return tuple(n for n in self.numel if n in wanted)

    def count(self, names: Collection[str]) -> int:
        """Scalars in `names`."""
        return sum(self.numel[n] for n in names)


@dataclass(frozen=True)
class Phase:
    """One stretch of optimizer steps in which one set of parameters trains.

    Attributes:
        name: for people, e.g. ``group 1 (blocks 6-7), sweep 1``.
        parameters: names that train, in the model's order; all others are frozen.
        steps: optimizer steps, at least 1.
        learning_rate_factor: multiplies the trial's learning-rate schedule.
        rewarmup_steps: steps over which this phase warms up again (0: none).
    """

    name: str
    parameters: tuple[str, ...]
    steps: int
    learning_rate_factor: float = 1.0
    rewarmup_steps: int = 0


class Strategy(ABC):
    """Cuts a trial into phases. Subclasses are frozen dataclasses; their fields are the options."""

    @abstractmethod
    def phases(self, layout: BlockLayout, total_steps: int) -> tuple[Phase, ...]:
        """The trial's phases in order; their steps add up to `total_steps`.

        Raises:
            UserError: fewer steps than phases.
        """

    @classmethod
    def option_names(cls) -> set[str]:
        """Options this strategy takes from study.yaml or from the search space."""
        return {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def split_steps(total_steps: int, phases: int) -> tuple[int, ...]:
    """`total_steps` split evenly, earlier phases taking the remainder.

    Raises:
        UserError: fewer steps than phases.
    """
    if total_steps < phases:
        raise UserError(
            f"{total_steps} optimizer steps cannot be split into {phases} phases of at least one "
            f"step. Raise training.min_steps or training.epochs to reach {phases} steps, or use "
            "fewer groups or sweeps."
        )
    share, remainder = divmod(total_steps, phases)
    return tuple(share + (i < remainder) for i in range(phases))
