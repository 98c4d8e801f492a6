"""LIFT: layer-wise fine-tuning, by default from the top layers down.

Zhu et al., "LIFT: Efficient Layer-wise Fine-tuning", OpenReview u0INlprg3U (not the sparse method
of the same name, arXiv 2506.00772). `cumulative` is gradual unfreezing (ULMFiT, arXiv 1801.06146).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

from study.basics.errors import UserError
from study.strategies.base import (
    BlockLayout,
    Phase,
    Strategy,
    split_steps,
    split_steps_proportionally,
)
from study.strategies.lift_options import (
    ORDERS,
    PHASE_STEPS,
    last_blocks,
    read_always_active,
    read_groups,
)


@dataclass(frozen=True)
class LiftStrategy(Strategy):
    """Trains one group of consecutive blocks after the other.

    The final norm and an untied head train with the top group, the embeddings (and so a tied
    head) with the bottom group, a randomly initialised head in every phase, whatever the order.

    Attributes:
        group_size: blocks per group, counted from the top, so that a smaller group is the lowest
            one; None: a quarter of the blocks, rounded up; more than there are: one group.
        groups: instead of `group_size`, the blocks of each group from the top, ``(2, 4, 6)`` or
            ``"2, 4, 6"``; they add up to the model's number of blocks.
        order: ``top-down``, ``bottom-up``, or ``random``: each sweep in a new order, drawn from
            the trial's seed.
        sweeps: times the whole pass is repeated.
        cumulative: groups that trained earlier in a sweep keep training.
        always_active: what trains in every phase: ``head``, ``final_norm``, ``last_K_blocks``.
            A tied head is the input embedding too: with ``head`` the backward pass then runs
            through all blocks in every phase, and no prefix stays frozen.
        phase_steps: ``even``, or ``proportional`` to the scalars that a phase trains.
        group_lr_decay: learning-rate factor per group below the top one, in (0, 1], whatever the
            order: what trains in the phases of other groups too keeps its own group's.
        rewarmup_ratio: share of a phase's steps that warms up again, in [0, 1); not in the
            first phase, which has the trial's own warmup.

    Raises:
        UserError: an option outside its range, or both of `group_size` and `groups`.
    """

    label = "LIFT"
    method = "LIFT (layer-wise)"
    colour, shape, dash = "#c8500a", "triangle-up", (6, 3)
    ink = "#b8480a", "#f2955a"
    exports = frozenset({"study", "deepspeed", "llamafactory"})

    group_size: int | None = None
    groups: Sequence[int] | str | None = None
    order: str = "top-down"
    sweeps: int = 1
    cumulative: bool = False
    always_active: Sequence[str] | str = ()
    phase_steps: str = "even"
    group_lr_decay: float = 1.0
    rewarmup_ratio: float = 0.1

    def __post_init__(self) -> None:
        self._require(self.group_size is None or self.group_size >= 1, "group_size", "at least 1")
        self._require(self.order in ORDERS, "order", f"one of {', '.join(ORDERS)}")
        self._require(self.sweeps >= 1, "sweeps", "at least 1")
        self._require(self.phase_steps in PHASE_STEPS, "phase_steps", " or ".join(PHASE_STEPS))
        self._require(0 < self.group_lr_decay <= 1, "group_lr_decay", "above 0 and at most 1")
        self._require(0 <= self.rewarmup_ratio < 1, "rewarmup_ratio", "at least 0 and below 1")
        if self.groups is not None:
            if self.group_size is not None:
                raise UserError(
                    f"lift: groups ({self.groups}) and group_size ({self.group_size}) exclude each "
                    "other. Keep one of them."
                )
            object.__setattr__(self, "groups", read_groups(self.groups))
        object.__setattr__(self, "always_active", read_always_active(self.always_active))

    def _require(self, holds: bool, option: str, rule: str) -> None:
        if not holds:
            raise UserError(f"lift: {option} must be {rule}, found {getattr(self, option)!r}.")

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
        sizes = read_groups(self.groups)
        if sum(sizes) != blocks:
            listed = " + ".join(map(str, sizes))
            raise UserError(
                f"lift: groups {listed} = {sum(sizes)} blocks, but the model has {blocks}. Change "
                f"them so that they add up to {blocks}."
            )
        ends = accumulate(sizes[:-1], lambda end, size: end - size, initial=blocks)
        return tuple(range(end - size, end) for end, size in zip(ends, sizes, strict=True))

    def phase_count(self, blocks: int) -> int:
        """Phases of a trial, each of which needs a step."""
        return self.sweeps * len(self.block_groups(blocks))

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
