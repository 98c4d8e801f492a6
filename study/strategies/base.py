"""What a strategy sees of a model, and what it answers with. No torch: names and counts only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Self

from study.basics.errors import ModelError, UserError
from study.basics.section import Section


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
        head: what turns the last hidden state into an answer: the parameters of the output matrix
            (in `embeddings` when tied) or of the classifier.

    Raises:
        ModelError: a parameter is missing from the parts, or in two of them.
    """

    numel: Mapping[str, int]
    embeddings: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    top: tuple[str, ...]
    new_head: tuple[str, ...] = ()
    tied: bool = False
    head: tuple[str, ...] = ()

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
        buried = set(self.head) - set(self.top) - set(self.embeddings)
        if buried:
            raise ModelError(
                f"the model's head lies inside its blocks: {', '.join(sorted(buried)[:5])}."
            )

    @property
    def final_norm(self) -> tuple[str, ...]:
        """What lies between the highest block and the head; empty for a post-norm model."""
        return tuple(name for name in self.top if name not in self.head)

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
        learning_rate_factors: of each of `parameters`, on top of the trial's learning-rate
            schedule; none given: 1 for all.
        rewarmup_steps: steps over which this phase warms up again (0: none).
    """

    name: str
    parameters: tuple[str, ...]
    steps: int
    learning_rate_factors: tuple[float, ...] = ()
    rewarmup_steps: int = 0

    def __post_init__(self) -> None:
        if not self.learning_rate_factors:
            object.__setattr__(self, "learning_rate_factors", (1.0,) * len(self.parameters))


@dataclass(frozen=True)
class AsText:
    """Marks an option that is a list: as text it stands in a search space, whose values are single
    ones.

    Attributes:
        read: what the text means; raises ConfigError where it means nothing.
        example: such a text.
        pattern: of every such text, as a JSON Schema has it.
    """

    read: Callable[[str], object]
    example: str
    pattern: str


class Strategy(Section, ABC):
    """Cuts a trial into phases. Its fields are the arm's section of study.yaml: with the types and
    bounds that they have here they may be written there, and each may be searched.

    Attributes:
        label: how it is written for people, e.g. ``LIFT``.
        method: what it is, in a few words.
        noun: it as a way to train, e.g. ``full fine-tuning``, of files that leave the study; empty:
            its label.
        ink: its colour in a page's text, on white and on black.
        trains_all: every parameter trains in every step, so that what it holds and how often a
            weight is updated follow from the model's size and the steps alone.
        exports: the formats of `study best` that can express it (`study.reuse.formats`); the
            study's own can any.
        summary: what it does, in a sentence.
        fewer_phases: what to ask for where its phases are too many.
        colour, shape, dash: of its marks and lines in figures (CSS, Vega).
        exclusive: pairs of options of which at most one may be given.
        structure: options that decide which parameters train together.
    """

    label: ClassVar[str]
    method: ClassVar[str]
    summary: ClassVar[str]
    fewer_phases: ClassVar[str] = "fewer phases"
    colour: ClassVar[str]
    shape: ClassVar[str]
    dash: ClassVar[tuple[int, int]]
    noun: ClassVar[str] = ""
    ink: ClassVar[tuple[str, str]] = ("#5d6977", "#9aa6b2")
    trains_all: ClassVar[bool] = False
    exports: ClassVar[frozenset[str]] = frozenset({"study"})
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = ()
    structure: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def phases(self, layout: BlockLayout, total_steps: int, *, seed: int = 0) -> tuple[Phase, ...]:
        """The trial's phases in order; their steps add up to `total_steps`.

        Args:
            seed: the trial's, for strategies that draw something.

        Raises:
            UserError: fewer steps than phases, or options that do not fit the model.
        """

    def phase_count(self, blocks: int) -> int:
        """Phases of the shortest trial, each of which needs a step."""
        return 1

    def steps_per_round(self, blocks: int) -> int:
        """Phases, of a step each, in which every parameter gets one update."""
        return 1

    @property
    def draws(self) -> bool:
        """Whether its phases depend on the trial's seed."""
        return False

    def as_probed(self) -> Self:
        """What the probe times, each phase of it: with a short list of phases where they repeat."""
        return self

    def as_priced(self) -> Self:
        """Without options that no price of a step depends on, so that more trials share one."""
        return self

    def warning(self, layout: BlockLayout) -> str | None:
        """What someone who chose these options for a model might not expect, in a sentence."""
        return None


def lowest_active_block(layout: BlockLayout, phase: Phase) -> int:
    """Where a phase's backward pass stops: its lowest block that trains.

    0 when anything in the embeddings trains, the number of blocks when only `top` does.
    """
    active = set(phase.parameters)
    if not active.isdisjoint(layout.embeddings):
        return 0
    trained = (i for i, block in enumerate(layout.blocks) if not active.isdisjoint(block))
    return next(trained, len(layout.blocks))


def frozen_prefix(layout: BlockLayout, phases: Sequence[Phase]) -> tuple[int, ...]:
    """Per phase the number of lowest blocks that still compute what the pre-trained model did.

    Neither their weights nor what feeds them trains in this phase or has trained in an earlier
    one, so the hidden states they hand on for a given input are the same in all phases and trials.
    """
    return tuple(accumulate((lowest_active_block(layout, phase) for phase in phases), min))


def split_steps(total_steps: int, phases: int) -> tuple[int, ...]:
    """`total_steps` split evenly, earlier phases taking the remainder.

    Raises:
        UserError: fewer steps than phases.
    """
    _require_a_step_each(total_steps, phases)
    share, remainder = divmod(total_steps, phases)
    return tuple(share + (i < remainder) for i in range(phases))


def split_steps_proportionally(total_steps: int, weights: Sequence[int]) -> tuple[int, ...]:
    """`total_steps` split in proportion to `weights` (above 0), each phase getting at least one.

    Phases whose share is below a step get one; the rest is split by largest remainder, earlier
    phases first where remainders are equal.

    Raises:
        UserError: fewer steps than phases.
    """
    _require_a_step_each(total_steps, len(weights))
    steps = [0] * len(weights)
    shared, left = list(range(len(weights))), total_steps
    while small := [i for i in shared if left * weights[i] < sum(weights[j] for j in shared)]:
        for i in small:
            steps[i] = 1
        left -= len(small)
        shared = [i for i in shared if not steps[i]]
    whole = sum(weights[i] for i in shared)
    for i in shared:
        steps[i] = left * weights[i] // whole
    by_remainder = sorted(shared, key=lambda i: (-(left * weights[i] % whole), i))
    for i in by_remainder[: total_steps - sum(steps)]:
        steps[i] += 1
    return tuple(steps)


def _require_a_step_each(total_steps: int, phases: int) -> None:
    if total_steps < phases:
        raise UserError(
            f"{total_steps} optimizer steps cannot be split into {phases} phases of at least one "
            f"step. Raise training.min_steps or training.epochs to reach {phases} steps, or use "
            "fewer groups or sweeps."
        )
