"""What every phase's place in the model and in the trial follows from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.basics.errors import ModelError, UserError
from study.strategies.base import (
    BlockLayout,
    Phase,
    frozen_prefix,
    lowest_active_block,
    split_steps_proportionally,
)
from study.strategies.full import FullStrategy
from study.strategies.lift import LiftStrategy
from tests.strategies.conformance import layout


def test_full_has_no_frozen_prefix() -> None:
    assert frozen_prefix(layout(6), FullStrategy().phases(layout(6), 10)) == (0,)


def test_top_down_prefixes_shrink_and_are_gone_in_the_second_sweep() -> None:
    phases = LiftStrategy(groups=[1, 2, 3], sweeps=2).phases(layout(6), 30)
    assert frozen_prefix(layout(6), phases) == (5, 3, 0, 0, 0, 0)
    assert [lowest_active_block(layout(6), p) for p in phases] == [5, 3, 0, 5, 3, 0]


def test_bottom_up_has_no_frozen_prefix_though_its_backward_pass_stops_early() -> None:
    phases = LiftStrategy(group_size=2, order="bottom-up").phases(layout(6), 30)
    assert frozen_prefix(layout(6), phases) == (0, 0, 0)
    assert [lowest_active_block(layout(6), p) for p in phases] == [0, 2, 4]


def test_a_prefix_never_grows_again() -> None:
    order = [Phase("x", (f"layers.{i}.bias",), 1) for i in (4, 1, 5, 3)]
    assert frozen_prefix(layout(6), order) == (4, 1, 1, 1)


def test_always_active_top_blocks_leave_the_prefix_as_it_is() -> None:
    strategy = LiftStrategy(group_size=2, always_active=["head", "final_norm", "last_1_blocks"])
    assert frozen_prefix(layout(6), strategy.phases(layout(6), 30)) == (4, 2, 0)


def test_where_only_the_top_trains_the_prefix_is_the_whole_stack() -> None:
    phase = Phase("head", ("norm.weight", "head.weight"), 1)
    assert lowest_active_block(layout(6), phase) == 6
    assert frozen_prefix(layout(6), [phase]) == (6,)


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (60, [10, 20, 30], (10, 20, 30)),
        (7, [1, 1, 1], (3, 2, 2)),  # equal remainders: earlier phases first
        (10, [1, 2, 4], (1, 3, 6)),  # shares 1.43, 2.86, 5.71: the rest goes to .86 and .71
        (10, [1, 1000, 1000], (1, 5, 4)),  # below one step: one, and 9 for the others
        (3, [1, 1, 1000], (1, 1, 1)),
        (20, [1, 10, 100, 1000], (1, 1, 2, 16)),  # 18 left for 1100: 1.64 and 16.36
    ],
)
def test_proportional_steps_by_largest_remainder(
    total: int, weights: list[int], expected: tuple[int, ...]
) -> None:
    assert split_steps_proportionally(total, weights) == expected


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=40), st.integers(0, 3000))
def test_proportional_steps_add_up_and_lie_within_one_of_their_share_or_at_one(
    weights: list[int], beyond: int
) -> None:
    total = len(weights) + beyond
    steps = split_steps_proportionally(total, weights)
    assert sum(steps) == total
    assert min(steps) >= 1
    for count, weight in zip(steps, weights, strict=True):
        assert count == 1 or count <= total * weight / sum(weights) + 1


def test_fewer_steps_than_phases_cannot_be_split_in_proportion_either() -> None:
    with pytest.raises(UserError, match="2 optimizer steps cannot be split into 3 phases"):
        split_steps_proportionally(2, [1, 1, 5])


def test_the_final_norm_is_what_lies_above_the_blocks_and_is_no_head() -> None:
    assert layout(2).final_norm == ("norm.weight",)
    assert layout(2, tied=True).final_norm == ("norm.weight",)


def test_a_head_inside_the_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="head lies inside its blocks: b"):
        BlockLayout(numel={"b": 1}, embeddings=(), blocks=(("b",),), top=(), head=("b",))
