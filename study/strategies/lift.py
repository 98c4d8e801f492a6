"""LIFT: layer-wise fine-tuning, by default from the top layers down.

Zhu et al., "LIFT: Efficient Layer-wise Fine-tuning", OpenReview u0INlprg3U (not the sparse method
of the same name, arXiv 2506.00772). `cumulative` is gradual unfreezing (ULMFiT, arXiv 1801.06146).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from study.basics.errors import ConfigError, UserError
from study.basics.section import PositiveInt
from study.strategies.base import (
    AsText,
    BlockLayout,
    Phase,
    Strategy,
    split_steps,
    split_steps_proportionally,
)
from study.strategies.lift_options import (
    ALWAYS_ACTIVE_SCHEMA,
    ALWAYS_ACTIVE_TEXT,
    GROUPS_SCHEMA,
    GROUPS_TEXT,
    last_blocks,
    read_always_active,
    read_groups,
)

MAX_SWEEPS = 1000


def _listed(read: Callable[[Any], tuple[Any, ...]], data: object) -> tuple[Any, ...]:
    """What a reader of `study.strategies.lift_options` makes of `data`, its fault as pydantic's."""
    try:
        return read(data)
    except ConfigError as error:
        (fault,) = error.faults
        raise PydanticCustomError("lift", fault.rule, {"remedy": fault.remedy}) from None


class LiftStrategy(Strategy):
    """Trains one group of consecutive blocks after the other.

    The final norm and an untied head train with the top group, the embeddings (and so a tied
    head) with the bottom group, a randomly initialised head in every phase, whatever the order.
    Where there are fewer blocks than `group_size`, they are one group; a smaller one is the lowest.
    """

    label = "LIFT"
    method = "LIFT (layer-wise)"
    ink = "#b8480a", "#f2955a"
    exports = frozenset({"study", "deepspeed", "llamafactory"})
    summary = "Groups of transformer blocks train one after another."
    fewer_phases = "fewer groups"
    colour, shape, dash = "#c8500a", "triangle-up", (6, 3)
    exclusive = (("groups", "group_size"),)
    structure = ("group_size", "groups", "order", "cumulative", "always_active")

    group_size: PositiveInt | None = None
    """Transformer blocks per group; null: a quarter of them, rounded up."""
    groups: Annotated[
        Annotated[tuple[PositiveInt, ...], Field(min_length=1), PlainSerializer(list)] | None,
        AsText(read_groups, "2, 4, 6", GROUPS_TEXT),
        WithJsonSchema(GROUPS_SCHEMA),
    ] = None
    """Blocks of each group from the top; instead of `group_size`, e.g. 2, 4, 6. They add up to the
    model's number of blocks."""
    order: Literal["top-down", "bottom-up", "random"] = "top-down"
    """Which group trains first; the others are controls. random: another order in every sweep,
    drawn from the trial's seed."""
    sweeps: Annotated[int, Field(ge=1, le=MAX_SWEEPS)] = 1
    """Times the whole pass is repeated."""
    cumulative: bool = False
    """Groups that trained earlier in a sweep keep training (gradual unfreezing)."""
    always_active: Annotated[
        tuple[str, ...],
        PlainSerializer(list),
        AsText(read_always_active, "head, last_2_blocks", ALWAYS_ACTIVE_TEXT),
        WithJsonSchema(ALWAYS_ACTIVE_SCHEMA),
    ] = ()
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
    def _groups_as_written(cls, data: object) -> object:
        if isinstance(data, str):
            return _listed(read_groups, data)
        return tuple(data) if isinstance(data, list) else data

    @field_validator("always_active", mode="before")
    @classmethod
    def _always_active_as_written(cls, data: object) -> object:
        words = isinstance(data, list | tuple) and all(isinstance(entry, str) for entry in data)
        if words or isinstance(data, str):
            return _listed(read_always_active, data)
        return tuple(data) if isinstance(data, list) else data

    @property
    def draws(self) -> bool:
        return self.order == "random"

    def as_probed(self) -> Self:
        # One sweep: a later one would find its prefix trained.
        return self.model_copy(update={"sweeps": 1})

    def as_priced(self) -> Self:
        return self.model_copy(update={"group_lr_decay": 1.0, "rewarmup_ratio": 0.0})

    def warning(self, layout: BlockLayout) -> str | None:
        if not layout.tied or "head" not in self.always_active:
            return None
        return (
            "always_active has head, and this model's head is tied to its embeddings: every LIFT "
            "step goes back through all blocks, and no hidden states can be cached."
        )

    def phases(self, layout: BlockLayout, total_steps: int, *, seed: int = 0) -> tuple[Phase, ...]:
        groups = self.block_groups(len(layout.blocks))
        always = set(layout.new_head) | self._always_active(layout)
        members = [_group_parameters(layout, groups, g) for g in range(len(groups))]
        factors = {n: self.group_lr_decay**g for g, names in enumerate(members) for n in names}
        turns = list(self._turns(len(groups), seed))
        parameters = [
            layout.ordered(always.union(*(members[g] for g in training))) for _, training in turns
        ]
        steps = self._split(total_steps, [layout.count(names) for names in parameters])
        return tuple(
            Phase(
                name=f"group {training[-1] + 1} ({_label(groups[training[-1]])}), sweep {sweep}",
                parameters=parameters[index],
                steps=steps[index],
                learning_rate_factors=tuple(factors[n] for n in parameters[index]),
                rewarmup_steps=round(self.rewarmup_ratio * steps[index]) if index else 0,
            )
            for index, (sweep, training) in enumerate(turns)
        )

    def block_groups(self, blocks: int) -> tuple[range, ...]:
        """0-based block indices of each group, the top group first.

        Raises:
            UserError: no blocks, or `groups` that do not add up to them.
        """
        if blocks < 1:
            raise UserError("lift: the model has no transformer blocks to cut into groups.")
        if self.groups is None:
            size = min(self.group_size or ceil(blocks / 4), blocks)
            return tuple(range(max(0, end - size), end) for end in range(blocks, 0, -size))
        sizes = self.groups
        if sum(sizes) != blocks:
            listed = " + ".join(map(str, sizes))
            raise UserError(
                f"lift: groups {listed} = {sum(sizes)} blocks, but the model has {blocks}. Change "
                f"them so that they add up to {blocks}."
            )
        ends = accumulate(sizes[:-1], lambda end, size: end - size, initial=blocks)
        return tuple(range(end - size, end) for end, size in zip(ends, sizes, strict=True))

    def phase_count(self, blocks: int) -> int:
        return self.sweeps * self.steps_per_round(blocks)

    def steps_per_round(self, blocks: int) -> int:
        return len(self.block_groups(blocks))

    def _turns(self, groups: int, seed: int) -> Iterator[tuple[int, Sequence[int]]]:
        """Per phase: its sweep, from 1, and the groups that train; the last one's turn it is."""
        generator = random.Random(seed)
        for sweep in range(1, self.sweeps + 1):
            order = list(range(groups))
            if self.order == "bottom-up":
                order.reverse()
            elif self.order == "random":
                generator.shuffle(order)
            for turn in range(groups):
                yield sweep, order[0 if self.cumulative else turn : turn + 1]

    def _split(self, total_steps: int, sizes: Sequence[int]) -> tuple[int, ...]:
        if self.phase_steps == "proportional":
            return split_steps_proportionally(total_steps, sizes)
        return split_steps(total_steps, len(sizes))

    def _always_active(self, layout: BlockLayout) -> set[str]:
        blocks = last_blocks(self.always_active)
        if blocks > len(layout.blocks):
            raise UserError(
                f"lift: always_active has last_{blocks}_blocks, but the model has "
                f"{len(layout.blocks)} blocks. Use at most last_{len(layout.blocks)}_blocks."
            )
        names = {n for block in layout.blocks[len(layout.blocks) - blocks :] for n in block}
        for part, found in (("head", layout.head), ("final_norm", layout.final_norm)):
            if part in self.always_active:
                if not found:
                    raise UserError(
                        f"lift: always_active has {part}, but the model has nothing of that kind "
                        "above its blocks. Remove it."
                    )
                names.update(found)
        return names


def _group_parameters(layout: BlockLayout, groups: tuple[range, ...], group: int) -> set[str]:
    names = {name for block in groups[group] for name in layout.blocks[block]}
    if group == 0:
        names.update(layout.top)
    if group == len(groups) - 1:
        names.update(layout.embeddings)
    return names


def _label(blocks: range) -> str:
    return f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]}-{blocks[-1]}"
