"""LIFT: layer-wise fine-tuning from the top layers down.

Zhu et al., "LIFT: Efficient Layer-wise Fine-tuning", OpenReview u0INlprg3U (not the sparse method
of the same name, arXiv 2506.00772). `cumulative` is gradual unfreezing (ULMFiT, arXiv 1801.06146).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from study.errors import UserError
from study.strategies.base import BlockLayout, Phase, Strategy, split_steps


@dataclass(frozen=True)
class LiftStrategy(Strategy):
    """Trains one group of consecutive blocks after the other, the top one first.

    The final norm and an untied head train with the top group, the embeddings (and so a tied
    head) with the bottom group, a randomly initialised head in every phase.

    Attributes:
        group_size: blocks per group, counted from the top, so that a smaller group is the lowest
            one; None: a quarter of the blocks, rounded up; more than there are: one group.
        sweeps: times the whole pass is repeated.
        cumulative: groups that trained earlier in a sweep keep training.
        group_lr_decay: learning-rate factor per group below the top one, in (0, 1].
        rewarmup_ratio: share of a phase's steps that warms up again, in [0, 1); not in the
            first phase, which has the trial's own warmup.

    Raises:
        UserError: an option outside its range.
    """

    group_size: int | None = None
    sweeps: int = 1
    cumulative: bool = False
    group_lr_decay: float = 1.0
    rewarmup_ratio: float = 0.1

    def __post_init__(self) -> None:
        self._require(self.group_size is None or self.group_size >= 1, "group_size", "at least 1")
        self._require(self.sweeps >= 1, "sweeps", "at least 1")
        self._require(0 < self.group_lr_decay <= 1, "group_lr_decay", "above 0 and at most 1")
        self._require(0 <= self.rewarmup_ratio < 1, "rewarmup_ratio", "at least 0 and below 1")

    def _require(self, holds: bool, option: str, rule: str) -> None:
        if not holds:
            raise UserError(f"lift: {option} must be {rule}, found {getattr(self, option)!r}.")

    def phases(self, layout: BlockLayout, total_steps: int) -> tuple[Phase, ...]:
        groups = self.groups(len(layout.blocks))
        steps = split_steps(total_steps, self.sweeps * len(groups))
        return tuple(
            self._phase(layout, groups, index, phase_steps)
            for index, phase_steps in enumerate(steps)
        )

    def groups(self, blocks: int) -> tuple[range, ...]:
        """0-based block indices of each group, the top group first.

        Raises:
            UserError: no blocks.
        """
        if blocks < 1:
            raise UserError("lift: the model has no transformer blocks to cut into groups.")
        size = min(self.group_size or ceil(blocks / 4), blocks)
        return tuple(range(max(0, end - size), end) for end in range(blocks, 0, -size))

    def _phase(
        self, layout: BlockLayout, groups: tuple[range, ...], index: int, steps: int
    ) -> Phase:
        sweep, depth = divmod(index, len(groups))
        first = 0 if self.cumulative else depth
        names = set(layout.new_head)
        for group in range(first, depth + 1):
            names.update(self._group_parameters(layout, groups, group))
        return Phase(
            name=f"group {depth + 1} ({_label(groups[depth])}), sweep {sweep + 1}",
            parameters=layout.ordered(names),
            steps=steps,
            learning_rate_factor=self.group_lr_decay**depth,
            rewarmup_steps=round(self.rewarmup_ratio * steps) if index else 0,
        )

    @staticmethod
    def _group_parameters(layout: BlockLayout, groups: tuple[range, ...], group: int) -> set[str]:
        names = {name for block in groups[group] for name in layout.blocks[block]}
        if group == 0:
            names.update(layout.top)
        if group == len(groups) - 1:
            names.update(layout.embeddings)
        return names


def _label(blocks: range) -> str:
    return f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]}-{blocks[-1]}"
