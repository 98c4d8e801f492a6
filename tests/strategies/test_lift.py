from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from study.errors import UserError
from study.strategies.full import FullStrategy
from study.strategies.lift import LiftStrategy
from tests.strategies.conformance import StrategyConformance, layout


class TestLiftByDefault(StrategyConformance):
    strategy = LiftStrategy()


class TestLiftBlockByBlockTwice(StrategyConformance):
    strategy = LiftStrategy(group_size=4, sweeps=2, group_lr_decay=0.5)


class TestLiftCumulative(StrategyConformance):
    strategy = LiftStrategy(group_size=2, cumulative=True)


def test_groups_count_from_the_top_so_the_incomplete_one_is_lowest() -> None:
    assert LiftStrategy(group_size=2).groups(5) == (range(3, 5), range(1, 3), range(0, 1))


@pytest.mark.parametrize(("blocks", "groups"), [(1, 1), (4, 4), (5, 3), (6, 3), (12, 4), (13, 4)])
def test_default_group_is_a_quarter_of_the_blocks_rounded_up(blocks: int, groups: int) -> None:
    assert len(LiftStrategy().groups(blocks)) == groups


def test_norm_and_untied_head_go_with_the_top_group_and_embeddings_with_the_bottom() -> None:
    top, middle, bottom = LiftStrategy(group_size=2).phases(layout(6), 30)
    assert {"norm.weight", "head.weight"} <= set(top.parameters)
    assert "layers.5.bias" in top.parameters
    assert set(middle.parameters) == {f"layers.{i}.{p}" for i in (2, 3) for p in ("weight", "bias")}
    assert "embedding.weight" in bottom.parameters
    assert "head.weight" not in bottom.parameters


def test_a_tied_matrix_trains_with_the_bottom_group_only() -> None:
    top, *_, bottom = LiftStrategy(group_size=2).phases(layout(6, tied=True), 30)
    assert "embedding.weight" not in top.parameters
    assert "embedding.weight" in bottom.parameters


def test_one_group_is_the_same_phase_as_full_but_for_its_name() -> None:
    for size in (6, 99):
        (lift,) = LiftStrategy(group_size=size, group_lr_decay=0.5).phases(layout(6), 10)
        (full,) = FullStrategy().phases(layout(6), 10)
        assert replace(lift, name=full.name) == full


def test_cumulative_phases_only_grow() -> None:
    phases = LiftStrategy(group_size=2, cumulative=True).phases(layout(6), 30)
    for earlier, later in pairwise(phases):
        assert set(earlier.parameters) < set(later.parameters)
    assert phases[-1].parameters == layout(6).parameters


def test_without_cumulative_no_parameter_trains_in_two_groups() -> None:
    phases = LiftStrategy(group_size=2).phases(layout(6), 30)
    names = [n for p in phases for n in p.parameters]
    assert len(names) == len(set(names))


def test_a_second_sweep_starts_at_the_top_again() -> None:
    phases = LiftStrategy(group_size=3, sweeps=2).phases(layout(6), 30)
    assert [p.parameters for p in phases[:2]] == [p.parameters for p in phases[2:]]
    assert [p.name for p in phases] == [
        "group 1 (blocks 3-5), sweep 1",
        "group 2 (blocks 0-2), sweep 1",
        "group 1 (blocks 3-5), sweep 2",
        "group 2 (blocks 0-2), sweep 2",
    ]


def test_decay_is_per_group_and_rewarmup_a_share_of_the_phase() -> None:
    strategy = LiftStrategy(group_size=2, group_lr_decay=0.5, rewarmup_ratio=0.2)
    phases = strategy.phases(layout(6), 31)
    assert [p.learning_rate_factor for p in phases] == [1.0, 0.5, 0.25]
    assert [p.steps for p in phases] == [11, 10, 10]
    assert [p.rewarmup_steps for p in phases] == [0, 2, 2]


def test_fewer_steps_than_phases_is_refused_with_the_numbers() -> None:
    with pytest.raises(UserError, match="5 optimizer steps cannot be split into 6 phases"):
        LiftStrategy(group_size=1).phases(layout(6), 5)


@pytest.mark.parametrize(
    "options", [{"group_size": 0}, {"sweeps": 0}, {"group_lr_decay": 0.0}, {"rewarmup_ratio": 1.0}]
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(UserError, match=f"lift: {name} must be"):
        LiftStrategy(**options)  # type: ignore[arg-type]
